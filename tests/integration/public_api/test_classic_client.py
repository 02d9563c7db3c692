"""The 1.x interface, exercised as its published clients do: with requests, urljoin and their quirks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
import requests
from public_api_processes import Handler, PublicApi, Upstream

TASK_ID = "0123456789abcdef0123456789abcdef"
NATIVE_OUTPUT = f"/v1/tasks/{TASK_ID}/output"
NATIVE_MODEL = {
    "id": 7, "uid": "ab" * 16, "human_readable_id": "Lung CT: v1", "description": None,
    "container_tag": "lung:1", "pull_policy": "if_missing", "enabled": True, "use_gpu": True, "version": 1,
    "image_id": None, "image_digest": None, "content": None, "sandbox": {"profile": "compatible"},
    "limits": {}, "input_mountpoint": "/input", "output_mountpoint": "/output",
    "model_mountpoint": "/model", "allow_empty_output": False,
}  # fmt: skip


def a_zip() -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.txt", "pixels")
    buffer.seek(0)
    return buffer


class OldClient:
    """What the published client does, request by request. ``slash`` is how its user wrote the paths."""

    def __init__(self, server: str, slash: str = "/") -> None:
        self.server = server
        self.slash = slash

    def post_task(self, model: str, zip_file: io.BytesIO) -> str:
        response = requests.post(
            urljoin(self.server, f"/api/tasks{self.slash}"),
            params={"model_human_readable_id": model, "relative_zip_file_path": "input.zip"},
            files={"zip_file": zip_file},
            allow_redirects=False,
            timeout=10,
        )
        response.raise_for_status()
        uid = json.loads(response.content)
        assert isinstance(uid, str)
        return uid

    def poll(self, uid: str) -> requests.Response:
        path = urljoin(urljoin(self.server, "/api/tasks/"), uid) + ("" if self.slash == "/" else "/")
        return requests.get(path, allow_redirects=False, timeout=10)

    def models(self) -> requests.Response:
        url = urljoin(self.server, f"/api/models{self.slash}")
        return requests.get(url, allow_redirects=False, timeout=10)

    def post_model(self, zip_file: io.BytesIO | None = None, **parameters: Any) -> requests.Response:
        return requests.post(
            urljoin(self.server, f"/api/models{self.slash}"),
            params=parameters,
            files={"zip_file": zip_file} if zip_file else None,
            allow_redirects=False,
            timeout=10,
        )


@pytest.fixture(params=["/", ""], ids=["slash", "no-slash"])
def client(request: pytest.FixtureRequest, relay: PublicApi) -> OldClient:
    # Its users write the key into the address.
    return OldClient(f"http://user:KEY@127.0.0.1:{relay.port}", request.param)


def query_of(target: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(target).query)


def test_a_task_is_sent_and_its_id_is_a_json_string(client: OldClient, stand_in: Upstream) -> None:
    # given
    stand_in.on_json(
        "POST", "/v1/tasks", 202, {"id": TASK_ID, "state": "queued"}, Location=f"/v1/tasks/{TASK_ID}"
    )
    content = a_zip()

    # when
    uid = client.post_task("Lung CT: v1", content)

    # then
    assert uid == TASK_ID
    seen = stand_in.last
    assert urlsplit(seen.target).path == "/v1/tasks"
    assert query_of(seen.target) == {"model_human_readable_id": ["Lung CT: v1"], "ignore_unknown": ["true"]}
    assert seen.headers["authorization"].startswith("Basic ")
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="zip_file"' in seen.body
    assert content.getvalue() in seen.body


def test_a_model_named_in_the_form_passes_in_the_form(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    stand_in.on_json("POST", "/v1/tasks", 202, {"id": TASK_ID})

    # when
    response = requests.post(
        f"{relay.url}/api/tasks/",
        data={"model_human_readable_id": "m"},
        files={"zip_file": a_zip()},
        timeout=10,
    )

    # then
    assert response.json() == TASK_ID
    assert stand_in.last.target == "/v1/tasks?ignore_unknown=true"
    assert b'name="model_human_readable_id"\r\n\r\nm\r\n' in stand_in.last.body


@pytest.mark.parametrize("code", ["model_not_found", "model_disabled"])
def test_an_unknown_model_is_550(client: OldClient, stand_in: Upstream, code: str) -> None:
    # given
    stand_in.on_json("POST", "/v1/tasks", 404, {"code": code, "detail": "There is no model 'm'."})

    # when
    with pytest.raises(requests.HTTPError) as caught:
        client.post_task("m", a_zip())

    # then
    assert caught.value.response.status_code == 550
    assert caught.value.response.json() == {"detail": {"detail": "There is no model 'm'."}}


def test_a_finished_task_is_its_zip(client: OldClient, stand_in: Upstream) -> None:
    # given
    content = a_zip().getvalue()
    headers = {"Content-Type": "application/zip", "ETag": '"x"'}
    stand_in.on("GET", NATIVE_OUTPUT, lambda handler: handler.answer_bytes(200, content, **headers))

    # when
    response = client.poll(TASK_ID)

    # then
    assert response.status_code == 200
    assert zipfile.ZipFile(io.BytesIO(response.content)).read("image.txt") == b"pixels"
    assert response.headers["Content-Length"] == str(len(content))
    assert response.headers["Content-Type"] == "application/zip"


@pytest.mark.parametrize(
    ("native_status", "code", "status", "sentence"),
    [
        (409, "task_not_finished", 551, "The task has not finished yet; ask again in a moment."),
        (409, "task_failed", 552, "A sentence."),
        (410, "output_expired", 553, "A sentence."),
        (404, "task_not_found", 554, "A sentence."),
    ],
)
def test_an_unfinished_task_has_a_status_of_its_own(
    client: OldClient, stand_in: Upstream, native_status: int, code: str, status: int, sentence: str
) -> None:
    # given
    problem = {"code": code, "detail": "A sentence."}
    stand_in.on_json("GET", NATIVE_OUTPUT, native_status, problem, Retry_After="2")

    # when
    response = client.poll(TASK_ID)

    # then
    assert response.status_code == status
    assert response.json() == {"detail": {"detail": sentence}}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Retry-After"] == "2"


@pytest.mark.parametrize("task_id", ["a" * 513, "%2e%2e", "..", "%2F", "a%00", '"'])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_cannot_be_an_id_is_an_unknown_task(
    relay: PublicApi, stand_in: Upstream, method: str, task_id: str
) -> None:
    # when
    status, headers, body = relay.raw(f"{method} /api/tasks/{task_id}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    # then
    assert status == 554
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)["detail"]) == {"detail"}
    assert stand_in.seen == []


def test_polling_survives_an_upstream_that_is_away_for_a_moment(
    client: OldClient, stand_in: Upstream
) -> None:
    # given an upstream that breaks off: a 500 would end the old client's wait, anything else goes on
    stand_in.on("GET", NATIVE_OUTPUT, lambda handler: handler.cut())

    # when
    response = client.poll(TASK_ID)

    # then
    assert response.status_code == 503


def test_a_wrong_key_stays_a_401_with_its_challenge(client: OldClient, stand_in: Upstream) -> None:
    # given
    problem = {"code": "unauthenticated", "detail": "The key is wrong."}
    stand_in.on_json("GET", NATIVE_OUTPUT, 401, problem, WWW_Authenticate="Basic")

    # when
    response = client.poll(TASK_ID)

    # then
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Basic")
    assert response.json()["detail"] == "The key is wrong."


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_task_is_removed(relay: PublicApi, stand_in: Upstream, slash: str) -> None:
    # given
    def answer(handler: Handler) -> None:
        handler.answer_bytes(204, b"")

    stand_in.on("DELETE", f"/v1/tasks/{TASK_ID}", answer)

    # when
    response = requests.delete(f"{relay.url}/api/tasks/{TASK_ID}{slash}", allow_redirects=False, timeout=10)

    # then
    assert (response.status_code, response.json()) == (200, TASK_ID)


def test_models_are_flat_and_without_nulls(client: OldClient, stand_in: Upstream) -> None:
    # given two pages, and a model that is disabled
    with_content = {**NATIVE_MODEL, "id": 8, "content": {"size_bytes": 1}, "model_mountpoint": None}
    pages: Iterator[dict[str, Any]] = iter(
        [
            {"items": [NATIVE_MODEL, {**NATIVE_MODEL, "enabled": False}], "next_cursor": "a b"},
            {"items": [with_content], "next_cursor": None},
        ]
    )
    stand_in.on("GET", "/v1/models", lambda handler: handler.answer_json(200, next(pages)))

    # when
    response = client.models()

    # then
    shown = {
        "id": 7, "uid": "ab" * 16, "human_readable_id": "Lung CT: v1", "description": "",
        "container_tag": "lung:1", "use_gpu": True, "model_available": False, "input_mountpoint": "/input",
        "output_mountpoint": "/output", "model_mountpoint": "/model",
    }  # fmt: skip
    other = {**shown, "id": 8, "model_available": True}
    del other["model_mountpoint"]
    assert response.status_code == 200
    assert response.json() == [shown, other]
    assert query_of(stand_in.last.target)["cursor"] == ["a b"]


def test_a_model_is_registered_without_a_body(client: OldClient, stand_in: Upstream) -> None:
    # given
    stand_in.on_json("POST", "/v1/models", 201, NATIVE_MODEL)

    # when
    response = client.post_model(
        container_tag="lung:1", human_readable_id="Lung CT: v1", description="d", use_gpu=True,
        model_available=False, input_mountpoint="/in", output_mountpoint="/out", model_mountpoint=None,
        timeout=5, something_unknown="x",
    )  # fmt: skip

    # then
    assert response.status_code == 200
    assert response.json()["human_readable_id"] == "Lung CT: v1"
    assert stand_in.last.target == "/v1/models"
    assert stand_in.last.headers["content-type"] == "application/json"
    assert json.loads(stand_in.last.body) == {
        "human_readable_id": "Lung CT: v1", "container_tag": "lung:1", "description": "d", "use_gpu": True,
        "input_mountpoint": "/in", "output_mountpoint": "/out", "classic_id": True, "profile": "compatible",
    }  # fmt: skip


def test_a_model_is_registered_with_its_content(client: OldClient, stand_in: Upstream) -> None:
    # given
    stand_in.on_json("POST", "/v1/models", 201, {**NATIVE_MODEL, "content": {"size_bytes": 1}})
    content = a_zip()

    # when
    response = client.post_model(
        content, container_tag="lung:1", human_readable_id="l", model_available=True, use_gpu=False
    )

    # then
    assert response.json()["model_available"] is True
    assert query_of(stand_in.last.target) == {
        "container_tag": ["lung:1"], "human_readable_id": ["l"], "use_gpu": ["false"],
        "classic_id": ["true"], "profile": ["compatible"], "ignore_unknown": ["true"],
    }  # fmt: skip
    assert content.getvalue() in stand_in.last.body


def test_content_that_is_announced_and_not_sent_is_an_error(client: OldClient, stand_in: Upstream) -> None:
    # when
    response = client.post_model(container_tag="lung:1", human_readable_id="l", model_available=True)

    # then
    assert response.status_code == 422
    assert "zip_file" in response.json()["detail"]
    assert stand_in.seen == []


def test_a_form_without_the_announced_content_leaves_no_model(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    stand_in.on_json("POST", "/v1/models", 201, NATIVE_MODEL)
    stand_in.on("DELETE", "/v1/models/Lung%20CT%3A%20v1", lambda handler: handler.answer_bytes(204, b""))

    # when
    response = requests.post(
        f"{relay.url}/api/models/?model_available=True", files={"other": b"x"}, timeout=10
    )

    # then
    assert response.status_code == 422
    assert [seen.method for seen in stand_in.seen] == ["POST", "DELETE"]


def test_an_id_that_exists_is_a_409_that_says_so(client: OldClient, stand_in: Upstream) -> None:
    # given
    problem = {"code": "model_exists", "detail": "A model 'l' exists already."}
    stand_in.on_json("POST", "/v1/models", 409, problem)

    # when
    response = client.post_model(container_tag="lung:1", human_readable_id="l")

    # then
    assert (response.status_code, response.json()["detail"]) == (409, "A model 'l' exists already.")


def test_the_root_greets_clients_and_shows_browsers_a_page(relay: PublicApi) -> None:
    # when
    greeting = requests.get(relay.url, timeout=10)
    page = requests.get(relay.url + "/", headers={"Accept": "text/html,*/*;q=0.8"}, timeout=10)

    # then
    assert greeting.json() == {"message": "Hello world - Welcome to the public API"}
    assert page.headers["Content-Type"].startswith("text/html")
    assert 'href="/openapi.json"' in page.text


def test_without_a_key_task_routes_work_only_in_anonymous_mode(
    start_public_api: Any, upstream: Upstream, tmp_path: Path
) -> None:
    # given
    key_file = tmp_path / "anonymous.key"
    key_file.write_text("stand-in\n")
    upstream.on_json("POST", "/v1/tasks", 202, {"id": TASK_ID})
    upstream.on_json("GET", "/v1/models", 200, {"items": [], "next_cursor": None})
    upstream.on_json("POST", "/v1/models", 401, {"code": "unauthenticated", "detail": "A key is needed."})
    settings = {"PUBLIC_API_ANONYMOUS_TASKS": "1", "PUBLIC_API_ANONYMOUS_KEY_FILE": str(key_file)}
    with start_public_api(**settings) as api:
        client = OldClient(api.url)

        # when
        client.post_task("m", a_zip())
        client.models()
        refused = client.post_model(container_tag="x:1", human_readable_id="x")
        OldClient(f"http://user:OWN@127.0.0.1:{api.port}").models()
        requests.get(f"{api.url}/v1/models", timeout=10)
        foreign = requests.get(
            f"{api.url}/api/models/", headers={"Origin": "https://evil.example"}, timeout=10
        )

    # then
    credentials = [seen.headers.get("authorization", "none").split()[0] for seen in upstream.seen]
    assert credentials == ["Bearer", "Bearer", "none", "Basic", "none"]
    assert upstream.seen[0].headers["authorization"] == "Bearer stand-in"
    assert refused.status_code == 401
    assert foreign.status_code == 403
