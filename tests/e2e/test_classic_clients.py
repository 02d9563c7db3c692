"""The 1.x interface on the whole server, request by request as its published clients send them."""

from __future__ import annotations

import io
import time
from urllib.parse import urljoin

import pytest
import requests

from tests.models.images import image_of
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.zips import files_of, zip_of


class OldClient:
    """Knows nothing of keys; its user put one into the address."""

    def __init__(self, server: Server, caller: Api) -> None:
        self._base = server.url.replace("//", f"//user:{caller.key}@")

    def call(self, method: str, path: str, **arguments: object) -> requests.Response:
        return requests.request(method, urljoin(self._base, path), timeout=60, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def client(server: Server, user: Api) -> OldClient:
    return OldClient(server, user)


@pytest.fixture
def registrar(server: Server, admin: Api) -> OldClient:
    return OldClient(server, admin)


@pytest.mark.parametrize("slash", ["", "/"])
def test_model_is_registered_used_and_removed(registrar: OldClient, client: OldClient, slash: str) -> None:
    # Given the greeting by which the client knows its server
    assert client.call("GET", "/").json() == {"message": "Hello world - Welcome to the public API"}
    # When a model with spaces and colons is registered, with content
    name = f"Lung CT: echo {time.time_ns()}"
    answer = registrar.call(
        "POST",
        f"/api/models{slash}",
        params={
            "container_tag": image_of("uses-model"), "human_readable_id": name, "description": "old",
            "model_available": True, "use_gpu": False, "input_mountpoint": "/input",
            "output_mountpoint": "/output", "model_mountpoint": "/model",
        },
        files={"zip_file": io.BytesIO(zip_of({"weights": b"w"}))},
    )  # fmt: skip
    # Then
    assert answer.status_code == 200, answer.text
    assert answer.json()["human_readable_id"] == name
    models = client.call("GET", f"/api/models{slash}").json()
    assert {"id", "uid", "container_tag", "use_gpu", "model_available"} <= models[0].keys()
    assert name in {model["human_readable_id"] for model in models}
    # When a task is sent
    answer = client.call(
        "POST",
        f"/api/tasks{slash}",
        params={"model_human_readable_id": name},
        files={"zip_file": io.BytesIO(zip_of({"a": b"b"}))},
    )
    # Then its id is the whole answer
    assert answer.status_code == 200, answer.text
    task_id = answer.json()
    assert isinstance(task_id, str)
    # And the result is there after a number of 551
    path = f"/api/tasks/{task_id}{slash}"
    seen: list[int] = []

    def finished() -> requests.Response | None:
        answer = client.call("GET", path)
        seen.append(answer.status_code)
        assert answer.status_code in {200, 551}, answer.text
        return answer if answer.status_code == 200 else None

    assert files_of(eventually(finished, 30, "the result", every=0.2).content) == {"weights": b"w"}
    # And when it is removed, nobody knows it
    assert client.call("DELETE", path).status_code == 200
    assert client.call("GET", path).status_code == 554


def test_failed_task_is_552(client: OldClient, admin: Api) -> None:
    # Given
    name = admin.register("exits-3")
    # When
    task_id = client.call(
        "POST",
        "/api/tasks/",
        params={"model_human_readable_id": name},
        files={"zip_file": io.BytesIO(zip_of({"a": b"b"}))},
    ).json()
    # Then
    path = f"/api/tasks/{task_id}"
    eventually(lambda: client.call("GET", path).status_code != 551, 30, "the task has ended")
    answer = client.call("GET", path)
    assert answer.status_code == 552
    assert "weights do not fit" in answer.json()["detail"]["detail"]


def test_unknown_model_is_550(client: OldClient) -> None:
    answer = client.call(
        "POST",
        "/api/tasks/",
        params={"model_human_readable_id": "nobody knows: this"},
        files={"zip_file": io.BytesIO(zip_of({"a": b"b"}))},
    )
    assert answer.status_code == 550
    assert answer.json()["detail"]["detail"]


def test_another_sites_page_cannot_use_the_readers_password(client: OldClient) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.call("GET", "/api/models/", headers=headers).status_code == 403
