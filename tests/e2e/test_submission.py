"""Sending a task and fetching its result, by plain curl as the documentation shows it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.rig.api import Api
from tests.rig.server import Server
from tests.rig.zips import files_of, zip_of

FILES = {
    "a.txt": b"alpha",
    "scans/": b"",
    "scans/1/": b"",
    "scans/1/slice.dat": bytes(range(256)),
    "empty/": b"",
}


@pytest.fixture
def task_zip(tmp_path: Path) -> Path:
    path = tmp_path / "task.zip"
    path.write_bytes(zip_of(FILES))
    return path


class Curl:
    """Runs curl with a key; keeps the last answer's status and headers."""

    def __init__(self, server: Server, key: str, directory: Path) -> None:
        self._server = server
        self._key = key
        self._directory = directory
        self.status = 0
        self.headers: dict[str, str] = {}

    def __call__(self, path: str, *arguments: str, user_info: str = "", key: bool = True) -> bytes:
        authorization = ["-H", f"Authorization: Bearer {self._key}"] if key else []
        url = self._server.url.replace("//", f"//{user_info}") + path
        out, head = self._directory / "body", self._directory / "head"
        command = ["curl", "-sS", "-o", str(out), "-D", str(head), "-w", "%{http_code}", *authorization]
        done = subprocess.run(
            [*command, *arguments, url], capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        self.status = int(done.stdout)
        lines = [line for line in head.read_text().splitlines() if ": " in line]
        self.headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        return out.read_bytes() if out.exists() else b""

    def json(self, path: str, *arguments: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(path, *arguments))
        return document


@pytest.fixture
def curl(server: Server, user: Api, tmp_path: Path) -> Curl:
    assert user.key is not None
    return Curl(server, user.key, tmp_path)


def test_form_is_accepted_polled_and_fetched(curl: Curl, model: Callable[[str], str], task_zip: Path) -> None:
    # When a task is sent as a form
    task = curl.json(
        "/v1/tasks", "-F", f"model_human_readable_id={model('echo')}", "-F", f"zip_file=@{task_zip}"
    )
    # Then it is accepted, with where and when to look
    assert curl.status == 202
    assert curl.headers["location"] == f"/v1/tasks/{task['id']}"
    assert int(curl.headers["retry-after"]) >= 1
    assert task["state"] == "queued"
    assert task["terminal"] is False
    assert task["input"]["size_bytes"] == task_zip.stat().st_size
    # And it ends within the wait that is asked for
    task = curl.json(task["urls"]["self"], "-H", "Prefer: wait=60")
    assert (curl.status, task["state"], task["exit_code"], task["attempt"]) == (200, "succeeded", 0, 1)
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]
    # And the output holds what was sent, directories and all
    assert files_of(curl(task["urls"]["output"])) == FILES
    assert int(curl.headers["content-length"]) == task["output"]["size_bytes"]
    assert task["output"]["sha256"] in curl.headers["etag"]
    assert curl.headers["content-type"] == "application/zip"
    # And the input is there still
    assert curl(task["urls"]["input"]) == task_zip.read_bytes()


def test_raw_body_is_accepted(curl: Curl, model: Callable[[str], str], task_zip: Path) -> None:
    # When the zip is sent as the body
    task = curl.json(f"/v1/tasks?model_human_readable_id={model('echo')}", "-T", str(task_zip))
    # Then
    assert curl.status == 202
    assert curl.json(task["urls"]["self"], "-H", "Prefer: wait=60")["state"] == "succeeded"


def test_chunked_body_is_accepted(curl: Curl, model: Callable[[str], str], task_zip: Path) -> None:
    # When curl does not know the length beforehand
    task = curl.json(
        f"/v1/tasks?model_human_readable_id={model('echo')}",
        *("-X", "POST", "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{task_zip}"),
    )
    # Then
    assert curl.status == 202
    assert task["input"]["size_bytes"] == task_zip.stat().st_size


def test_one_request_takes_the_zip_in_and_the_result_out(
    curl: Curl, model: Callable[[str], str], task_zip: Path
) -> None:
    # When the result itself is asked for
    body = curl(
        f"/v1/tasks?model_human_readable_id={model('echo')}",
        *("-T", str(task_zip), "-H", "Prefer: wait=60", "-H", "Accept: application/zip"),
    )
    # Then
    assert curl.status == 200
    assert curl.headers["content-type"] == "application/zip"
    assert curl.headers["content-location"].startswith("/v1/tasks/")
    assert files_of(body) == FILES
    # And the same bytes lie where the header says
    assert curl(curl.headers["content-location"]) == body


def test_one_request_for_a_task_that_fails_says_why(
    curl: Curl, model: Callable[[str], str], task_zip: Path
) -> None:
    # When
    problem = curl.json(
        f"/v1/tasks?model_human_readable_id={model('exits-3')}",
        *("-T", str(task_zip), "-H", "Prefer: wait=60", "-H", "Accept: application/zip"),
    )
    # Then
    assert (curl.status, problem["code"]) == (409, "task_failed")
    assert curl.headers["content-type"] == "application/problem+json"
    assert "the weights do not fit" in problem["detail"]
    assert curl.json(f"/v1/tasks/{problem['task_id']}")["reason_code"] == "exit_nonzero"


def test_wait_that_is_too_short_answers_202(
    curl: Curl, user: Api, model: Callable[[str], str], task_zip: Path
) -> None:
    # When
    task = curl.json(
        f"/v1/tasks?model_human_readable_id={model('sleeps-for-ever')}",
        *("-T", str(task_zip), "-H", "Prefer: wait=1", "-H", "Accept: application/zip"),
    )
    # Then
    assert curl.status == 202
    assert task["terminal"] is False
    assert curl.headers["location"] == task["urls"]["self"]
    user.post(task["urls"]["cancel"])


@pytest.mark.parametrize("way", ["bearer", "x-api-key", "basic", "in the address"])
def test_key_is_taken_in_every_way_that_clients_send_it(curl: Curl, user: Api, way: str) -> None:
    # When
    arguments = {
        "bearer": ["-H", f"Authorization: Bearer {user.key}"],
        "x-api-key": ["-H", f"X-API-Key: {user.key}"],
        "basic": ["-u", f"anybody:{user.key}"],
        "in the address": [],
    }[way]
    curl("/v1/tasks", *arguments, key=False, user_info="" if arguments else f"anybody:{user.key}@")
    # Then
    assert curl.status == 200


def test_service_describes_itself(curl: Curl) -> None:
    # When
    document = curl.json("/openapi.json")
    # Then it needs no key and knows the routes that this file uses
    assert document["openapi"].startswith("3.1")
    assert {"/v1/tasks", "/v1/models", "/v1/keys"} <= document["paths"].keys()
