"""What the stub of the native interface keeps and is told: requests that came, faults to show, its tasks."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

KEY = "correct-horse-battery"
ENDED = {"succeeded", "failed", "canceled"}


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def facts_of(data: bytes) -> dict[str, Any]:
    return {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes
    body_bytes: int


@dataclass
class Fault:
    """What to do ``times`` times instead of a true answer to requests whose "METHOD /path" fits."""

    pattern: str
    kind: str  # drop, stall, early, drop_after, empty_200, html_200, cut, corrupt, or a status
    times: int = 1
    cut_at: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] | None = None


@dataclass
class StubTask:
    id: str
    model: str
    input: bytes
    state: str = "queued"
    log: bytes = b""
    output: bytes | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "id": self.id, "model": self.model, "model_version": 1, "image_digest": None, "state": self.state,
            "terminal": self.state in ENDED, "reason_code": None, "reason": None, "exit_code": None,
            "attempt": 1,
            "priority": 0, "queue_position": None, "waiting_for": None, "created_at": "2026-11-21T08:00:00Z",
            "started_at": None, "finished_at": None, "expires_at": None, "input": facts_of(self.input),
            "output": None if self.output is None else facts_of(self.output), "progress": None,
            "urls": {"self": f"/v1/tasks/{self.id}"}, **self.fields,
        }  # fmt: skip
