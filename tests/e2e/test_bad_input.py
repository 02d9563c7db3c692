"""Requests that cannot be served: each gets its own problem, and the server is as before."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.bad_zips import BAD_WHEN_UNPACKED, BAD_ZIPS
from tests.e2e.conftest import MAX_INPUT_BYTES
from tests.models.images import image_of
from tests.rig.api import Api, problem
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.stack import Stack
from tests.rig.zips import zip_of

Model = Callable[[str], str]


@pytest.fixture(autouse=True)
def leaves_nothing(server: Server, user: Api) -> Iterator[None]:
    """Whatever is refused leaves no task and no byte in the store."""
    before = kept(server, user)
    yield
    eventually(lambda: kept(server, user) == before, 10, f"tasks and blobs are again {before}")


def kept(server: Server, user: Api) -> tuple[int, set[str]]:
    newest = user.get("/v1/tasks", params={"limit": 1000}).json()["items"]
    return len(newest), server.blobs()


def send(user: Api, model: str, body: bytes, **more: str) -> requests.Response:
    return user.post("/v1/tasks", params={"model_human_readable_id": model, **more}, data=body)


@pytest.mark.parametrize("name", [name for name in BAD_ZIPS if name != "empty file"])
def test_bad_zip(user: Api, model: Model, name: str) -> None:
    # Given
    build, words = BAD_ZIPS[name]
    # When
    answer = send(user, model("echo"), build())
    # Then
    assert words in problem(answer, 422, "input_invalid")["detail"]


@pytest.mark.parametrize("name", ["not a zip", "symlink", "200,000 entries"])
def test_bad_zip_in_a_form(user: Api, model: Model, name: str) -> None:
    build, words = BAD_ZIPS[name]
    answer = user.post(
        "/v1/tasks", data={"model_human_readable_id": model("echo")}, files={"zip_file": ("x.zip", build())}
    )
    assert words in problem(answer, 422, "input_invalid")["detail"]


@pytest.mark.parametrize("name", BAD_WHEN_UNPACKED)
def test_zip_whose_lie_shows_late_fails_its_task(user: Api, model: Model, name: str) -> None:
    # Given a zip that its directory does not betray
    build, words = BAD_WHEN_UNPACKED[name]
    # When
    task = user.ended(user.submit(model("echo"), build()))
    # Then the caller is told, not the model blamed, and nothing tried again
    assert (task["state"], task["reason_code"], task["attempt"]) == ("failed", "input_invalid", 1)
    assert words in task["reason"]
    user.call("DELETE", task["urls"]["self"])


def test_no_file(user: Api, model: Model) -> None:
    problem(send(user, model("echo"), b""), 422, "missing_file")


def test_form_without_a_file(user: Api, model: Model) -> None:
    form = {"model_human_readable_id": (None, model("echo")), "priority": (None, "0")}
    problem(user.post("/v1/tasks", files=form), 422, "missing_file")


def test_form_with_an_empty_file(user: Api, model: Model) -> None:
    answer = user.post(
        "/v1/tasks", data={"model_human_readable_id": model("echo")}, files={"zip_file": ("x.zip", b"")}
    )
    problem(answer, 422, "missing_file")


def test_unknown_model(user: Api) -> None:
    document = problem(send(user, "nobody-knows", zip_of({"a": b"b"})), 404, "model_not_found")
    assert "nobody-knows" in document["detail"]


def test_no_model(user: Api) -> None:
    document = problem(user.post("/v1/tasks", data=zip_of({"a": b"b"})), 422, "invalid_field")
    assert "model_human_readable_id" in document["detail"]


def test_disabled_model(user: Api, admin: Api) -> None:
    # Given
    disabled = admin.register("echo", enabled=False)
    # When / Then
    problem(send(user, disabled, zip_of({"a": b"b"})), 409, "model_disabled")


@pytest.mark.stands(
    "embedded", reason="This client does not read an early answer over TLS; the proxy's tests do."
)
def test_too_large_with_a_length(user: Api, model: Model) -> None:
    document = problem(send(user, model("echo"), bytes(MAX_INPUT_BYTES + 1)), 413, "too_large")
    assert str(MAX_INPUT_BYTES) in document["detail"].replace(",", "")


def test_too_large_without_a_length(user: Api, model: Model) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_INPUT_BYTES // 2**20 + 1):
            yield bytes(2**20)

    answer = user.post("/v1/tasks", params={"model_human_readable_id": model("echo")}, data=pieces())
    problem(answer, 413, "too_large")


def test_unwelcome_priority(user: Api, model: Model) -> None:
    for priority in ("x", "1e3", "99999999999999999999", "1.5"):
        problem(send(user, model("echo"), zip_of({"a": b"b"}), priority=priority), 422, "invalid_field")


def raw(server: Server, request: bytes, *, half_close: bool = True) -> tuple[int, bytes]:
    """Status and body of the answer to bytes on a socket."""
    with server.connect() as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            _, separator, body = answer.partition(b"\r\n\r\n")
            if separator and b"}" in body:
                break
    assert answer.startswith(b"HTTP/1."), answer[:200]
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def post(server: Server, user: Api, model: str, *headers: str) -> bytes:
    lines = [
        f"POST /v1/tasks?model_human_readable_id={model} HTTP/1.1",
        f"Host: {server.url.rpartition('/')[2]}",
        f"Authorization: Bearer {user.key}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_body_shorter_than_its_length(server: Server, user: Api, model: Model) -> None:
    # Given a whole zip, and a length that promises more
    body = zip_of({"a": b"b"})
    # When
    status, answer = raw(
        server, post(server, user, model("echo"), f"Content-Length: {len(body) + 100}") + body
    )
    # Then
    assert_incomplete(server, status, answer)


def assert_incomplete(server: Server, status: int, answer: bytes) -> None:
    if isinstance(server, Stack):
        # To the proxy whoever ends their half of a connection has left, and may be told nothing; but no
        # client can take what it is told for a yes.
        assert status >= 400 or answer == b""
    else:
        assert (status, json.loads(answer)["code"]) == (400, "incomplete_body")


def test_chunked_body_without_its_end(server: Server, user: Api, model: Model) -> None:
    body = zip_of({"a": b"b"})
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    status, answer = raw(server, post(server, user, model("echo"), "Transfer-Encoding: chunked") + chunk)
    assert_incomplete(server, status, answer)


@pytest.mark.stands(
    "embedded", reason="The proxy reads requests itself and refuses these in words of its own."
)
@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 10", "Content-Length: 11"),
        ("Content-Length: 10", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
        ("Content-Length: ten",),
        ("Transfer-Encoding: gzip, identity",),
        ("Bad Header: x",),
        (f"X-Huge: {'x' * 100_000}",),
    ],
    ids=[
        "two lengths",
        "length and chunks",
        "negative length",
        "word for a length",
        "odd coding",
        "space",
        "huge",
    ],
)
def test_request_that_no_parser_takes(
    server: Server, user: Api, model: Model, headers: tuple[str, ...]
) -> None:
    # When
    status, answer = raw(
        server, post(server, user, model("echo"), *headers) + b"0123456789", half_close=False
    )
    # Then even that is answered in JSON
    assert 400 <= status < 500
    document = json.loads(answer)
    assert document["status"] == status
    assert document["code"]


def test_address_that_is_too_long(server: Server, user: Api) -> None:
    answer = user.get("/v1/tasks?model=" + "x" * 100_000)
    assert 400 <= answer.status_code < 500
    if isinstance(server, Server):
        assert answer.json()["code"]


IDS = [
    "..",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%2e%2e",
    "a%0d%0ab",
    "x" * 300,
    "ü",
    "' OR 1=1",
]


@pytest.mark.parametrize("bad_id", IDS)
@pytest.mark.parametrize("route", ["/v1/tasks/{}", "/v1/tasks/{}/output", "/v1/models/{}"])
def test_id_that_nothing_can_have(server: Server, user: Api, route: str, bad_id: str) -> None:
    # When sent as it stands, without anybody's tidying
    path = route.format(bad_id.replace(" ", "%20"))
    request = (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.key}\r\nConnection: close\r\n\r\n"
    )
    status, answer = raw(server, request.encode(), half_close=False)
    # Then
    document = json.loads(answer)
    assert 400 <= status < 500
    assert document["code"] in {
        "not_found",
        "task_not_found",
        "model_not_found",
        "bad_request",
        "method_not_allowed",
    }


BAD_JSON = {
    "not JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "nested": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "NaN": b'{"human_readable_id": "x", "container_tag": "x", "time_seconds": NaN}',
    "infinity": b'{"human_readable_id": "x", "container_tag": "x", "time_seconds": Infinity}',
    "lone surrogate": b'{"human_readable_id": "x", "container_tag": "x", "description": "\\ud800"}',
    "not UTF-8": b'{"human_readable_id": "\xff"}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_body_that_is_no_json_object(admin: Api, name: str) -> None:
    answer = admin.post("/v1/models", data=BAD_JSON[name], headers={"Content-Type": "application/json"})
    problem(answer, 400, "invalid_json")


@pytest.mark.parametrize(
    "fields",
    [
        {"container_tag": None},
        {"human_readable_id": None},
        {"human_readable_id": "a b"},
        {"human_readable_id": "a/b"},
        {"human_readable_id": ".."},
        {"human_readable_id": "x" * 129},
        {"human_readable_id": ""},
        {"human_readable_id": 7},
        {"container_tag": "UPPER/Case"},
        {"container_tag": "a b"},
        {"container_tag": "x" * 300},
        {"container_tag": "--privileged"},
        {"unheard_of": 1},
        {"env": {"LD_PRELOAD": "/x.so"}},
        {"privileged": True},
        {"time_seconds": -1},
        {"time_seconds": 0},
        {"memory_bytes": -1},
        {"memory_bytes": 2**63},
        {"memory_bytes": 10**40},
        {"memory_bytes": 1.5},
        {"cpus": 0},
        {"pids": 0},
        {"log_bytes": "many"},
        {"profile": "privileged"},
        {"pull_policy": "never mind"},
        {"use_gpu": "perhaps"},
        {"input_mountpoint": "relative"},
        {"input_mountpoint": "/"},
        {"input_mountpoint": "/a/../etc"},
        {"output_mountpoint": "/input"},
        {"output_mountpoint": "/input/out"},
        {"output_mountpoint": "/proc/x"},
        {"description": "x" * 10**6},
    ],
    ids=str,
)
def test_model_that_cannot_be_registered(admin: Api, fields: dict[str, object]) -> None:
    # Given
    whole = {"human_readable_id": "never-registered", "container_tag": image_of("echo"), **fields}
    # When
    answer = admin.post("/v1/models", json={k: v for k, v in whole.items() if v is not None})
    # Then
    problem(answer, 422, "invalid_field")
    assert admin.get("/v1/models/never-registered").status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=0",
        "limit=1000000000",
        "limit=x",
        "cursor=%00",
        "cursor=x",
        "state=lost",
        "created_after=x",
    ],
)
def test_list_that_cannot_be(user: Api, query: str) -> None:
    problem(user.get(f"/v1/tasks?{query}"), 422, "invalid_field")


def test_wrong_content_type(admin: Api) -> None:
    answer = admin.post("/v1/keys", data=b"name=x&role=user", headers={"Content-Type": "text/html"})
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v1/models"), ("DELETE", "/v1/tasks"), ("PATCH", "/v1/keys")]
)
def test_method_that_is_not_there(admin: Api, method: str, path: str) -> None:
    answer = admin.call(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v2/tasks", "/admin", "/v1/tasks/x/y/z", "/.env"])
def test_nothing_there(admin: Api, path: str) -> None:
    problem(admin.get(path), 404, "not_found")


def test_bad_multipart(user: Api) -> None:
    for content_type, body in (
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\nabc',
        ),
        (f"multipart/form-data; boundary={'x' * 300}", b"x"),
    ):
        answer = user.post("/v1/tasks", data=body, headers={"Content-Type": content_type})
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.status_code in {400, 422}, answer.text
