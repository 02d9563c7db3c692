"""The few calls of the HTTP interface that the demo makes, as plainly as a reader would write them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from setup.console import SetupError
from setup.embedded.registration import Change

# Short, so that a quick task's states are seen as they pass; this is one reader on loopback.
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Moment:
    """What is known about a running task at one moment: the task, and what its log has gained."""

    task: dict[str, Any]
    new_log: bytes


class NativeApi:
    """One server, one key."""

    def __init__(self, address: str, key: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"
        # Loopback is never reached through a proxy, whatever the environment says.
        self._session.trust_env = False

    def find_model(self, name: str) -> dict[str, Any] | None:
        """The registered model, or None."""
        response = self._session.get(f"{self._address}/v1/models/{name}", timeout=PATIENCE_SECONDS)
        if response.status_code == requests.codes.not_found:
            return None
        return _json(response)

    def change_model(self, name: str, change: Change, content: Path) -> dict[str, Any]:
        """Register or change a model."""
        url = f"{self._address}/v1/models" + ("" if change.create else f"/{name}")
        files: dict[str, Any] = {field: (None, value) for field, value in change.fields.items()}
        if change.send_content:
            files["zip_file"] = (content.name, content.read_bytes(), "application/zip")
        method = "POST" if change.create else "PATCH"
        return _json(self._session.request(method, url, files=files, timeout=PATIENCE_SECONDS))

    def submit(self, model: str, task_zip: Path) -> dict[str, Any]:
        """Send a task."""
        with task_zip.open("rb") as body:
            response = self._session.post(
                f"{self._address}/v1/tasks",
                params={"model_human_readable_id": model},
                data=body,
                headers={"Content-Type": "application/zip"},
                timeout=PATIENCE_SECONDS,
            )
        return _json(response)

    def follow(self, task_id: str) -> Iterator[Moment]:
        """The task and its new log lines, again and again until it has ended and its log is complete."""
        url, offset, complete = f"{self._address}/v1/tasks/{task_id}", 0, False
        while not complete:
            # The log is asked for last: one that is complete then was not cut short by a task that went on.
            task = _json(self._session.get(url, timeout=PATIENCE_SECONDS))
            log = self._session.get(f"{url}/logs", params={"offset": offset}, timeout=PATIENCE_SECONDS)
            _check(log)
            offset = int(log.headers["X-Next-Offset"])
            complete = task["terminal"] and log.headers["X-Log-Complete"] == "true"
            yield Moment(task, log.content)
            time.sleep(0 if complete else POLL_SECONDS)

    def download(self, task_id: str, target: Path) -> None:
        """Save the output zip, and check it against its hash."""
        response = self._session.get(f"{self._address}/v1/tasks/{task_id}/output", timeout=PATIENCE_SECONDS)
        _check(response)
        found = hashlib.sha256(response.content).hexdigest()
        if response.headers["ETag"].strip('"') != found:
            raise SetupError("The downloaded result does not have the hash that the server recorded for it.")
        target.write_bytes(response.content)


def _check(response: requests.Response) -> None:
    if not response.ok:
        raise SetupError(
            f"{response.request.method} {response.url} answered {response.status_code}: {response.text}"
        )


def _json(response: requests.Response) -> dict[str, Any]:
    _check(response)
    answer: dict[str, Any] = response.json()
    return answer
