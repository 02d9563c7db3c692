"""The native API as tests speak it: thin, so that a test sees every status and header."""

from __future__ import annotations

import hashlib
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.models.images import image_of
from tests.rig.polling import PATIENCE, eventually
from tests.rig.zips import files_of, zip_of

Task = dict[str, Any]
_numbers = itertools.count(1)


@dataclass
class Api:
    """One caller: an address and a key."""

    url: str
    key: str | None
    session: requests.Session = field(default_factory=requests.Session)
    # The file with the root certificate to trust; None as the machine does.
    trusted: str | None = None

    def call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        """One request; never follows a redirect, never waits longer than any answer is held."""
        headers = dict(arguments.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        arguments.setdefault("timeout", 75)
        if self.trusted:
            arguments.setdefault("verify", self.trusted)
        return self.session.request(
            method, self.url + path, headers=headers, allow_redirects=False, **arguments
        )

    def get(self, path: str, **arguments: Any) -> requests.Response:
        return self.call("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> requests.Response:
        return self.call("POST", path, **arguments)

    def register(self, tiny_model: str, content: dict[str, bytes] | None = None, **settings: Any) -> str:
        """Register a model that runs the tiny model of that name; returns its id, which is new each time."""
        fields = {
            "human_readable_id": f"{tiny_model}-{next(_numbers)}",
            "container_tag": image_of(tiny_model),
            # Small enough that none of the misbehaving ones troubles the machine.
            "memory_bytes": 128 * 1024**2,
            "time_seconds": 60,
            "pids": 64,
            **settings,
        }
        if content is None:
            answer = self.post("/v1/models", json=fields)
        else:
            answer = self.post("/v1/models", data=fields, files={"zip_file": ("m.zip", zip_of(content))})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["human_readable_id"])

    def submit(self, model: str, files: dict[str, bytes] | bytes = b"", **headers: str) -> Task:
        """Send a task and return it as accepted."""
        zipped = files if isinstance(files, bytes) and files else zip_of(files or {"in.txt": b"in"})
        answer = self.post(
            "/v1/tasks", params={"model_human_readable_id": model}, data=zipped, headers=headers
        )
        assert answer.status_code == 202, answer.text
        task: Task = answer.json()
        return task

    def insist(self, model: str, files: dict[str, bytes], key: str, seconds: float = 60.0) -> Task:
        """Send the same task until it is accepted, as a client that will not give up."""
        body, deadline = zip_of(files), time.monotonic() + seconds * PATIENCE
        while True:
            try:
                answer = self.post(
                    "/v1/tasks",
                    params={"model_human_readable_id": model},
                    data=body,
                    headers={"Idempotency-Key": key},
                )
                if answer.status_code == 202:
                    task: Task = answer.json()
                    return task
                assert answer.status_code in {502, 503}, answer.text
                assert answer.json()["retryable"] is True
            except requests.ConnectionError:
                # The process was gone before it could say anything.
                pass
            assert time.monotonic() < deadline, "the task was never accepted"
            time.sleep(0.1)

    def task(self, task_id: str) -> Task:
        """The task as it is."""
        answer = self.get(f"/v1/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        task: Task = answer.json()
        return task

    def running(self, task: Task, seconds: float = 30.0) -> Task:
        """The task once its container runs."""

        def look() -> Task | None:
            seen = self.task(task["id"])
            assert not seen["terminal"], f"the task has ended already: {seen}"
            return seen if seen["state"] == "running" else None

        return eventually(look, seconds, "the task runs")

    def ended(self, task: Task, seconds: float = 60.0) -> Task:
        """The task once it has ended."""
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            wait = f"wait={max(1, min(30, round(left)))}"
            answer = self.get(f"/v1/tasks/{task['id']}", headers={"Prefer": wait})
            assert answer.status_code == 200, answer.text
            seen: Task = answer.json()
            if seen["terminal"]:
                return seen
            assert left > 0, f"the task has not ended within {seconds:g} s: {seen}"

    def run(self, model: str, files: dict[str, bytes] | None = None, seconds: float = 60.0) -> Task:
        """Send a task and wait for its end."""
        return self.ended(self.submit(model, files or b""), seconds)

    def output(self, task: Task) -> dict[str, bytes]:
        """The files of a finished task, once their bytes were held against the recorded size and hash."""
        answer = self.get(f"/v1/tasks/{task['id']}/output")
        assert answer.status_code == 200, answer.text
        recorded = self.task(task["id"])["output"]
        assert len(answer.content) == recorded["size_bytes"]
        assert hashlib.sha256(answer.content).hexdigest() == recorded["sha256"]
        return files_of(answer.content)

    def log(self, task: Task) -> bytes:
        """The whole log of a task that has ended."""
        log = b""
        while True:
            answer = self.get(f"/v1/tasks/{task['id']}/logs", params={"offset": len(log)})
            assert answer.status_code == 200, answer.text
            log += answer.content
            if answer.headers["X-Log-Complete"] == "true":
                return log
            assert answer.content, "a part of the log is missing, and the task has ended"


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of ``answer``, which must be this one and well-formed."""
    assert answer.headers.get("Content-Type") == "application/problem+json", (answer.status_code, answer.text)
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), document
    assert document["type"]
    assert document["title"]
    assert document["detail"].strip()
    assert isinstance(document["retryable"], bool)
    if status in {429, 503}:
        assert int(answer.headers["Retry-After"]) > 0
    return document
