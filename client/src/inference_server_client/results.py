"""What the server tells about tasks, models and keys, as frozen typed values.

Each has ``from_json``, which ignores fields it does not know (the server may be newer) and raises
``AnswerError`` naming a field that it needs and does not find; ``document`` keeps the server's own JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Self, TypeVar

from inference_server_client.errors import AnswerError
from inference_server_client.reading import Json, moment_of, names, need, part, want

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BlobFacts:
    """Size and lower-case hexadecimal SHA-256 of a stored zip."""

    size_bytes: int
    sha256: str

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read the object that stands for a stored zip."""
        return cls(size_bytes=need(document, "size_bytes", int), sha256=need(document, "sha256", str))


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the model says about itself: ``fraction`` in 0..1; either may be None."""

    fraction: float | None
    message: str | None

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a task's progress object."""
        fraction = document.get("fraction")
        is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        return cls(
            fraction=min(max(float(fraction), 0.0), 1.0) if is_number else None,  # type: ignore[arg-type]
            message=want(document, "message", str),
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task. Its ``state``: queued, starting, running; and for good: succeeded, failed, canceled."""

    id: str
    model: str
    model_version: int | None
    image_digest: str | None
    state: str
    terminal: bool
    reason_code: str | None
    reason: str | None
    exit_code: int | None
    attempt: int
    priority: int
    queue_position: int | None
    waiting_for: str | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    input: BlobFacts | None
    output: BlobFacts | None
    progress: Progress | None
    document: Json = field(repr=False, compare=False, default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether there is an output to fetch."""
        return self.state == "succeeded"

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read the task as every route shows it."""
        task_id = need(document, "id", str)
        # Ids become parts of file names and of commands to copy; nothing but an id may pass for one.
        if not _TASK_ID.fullmatch(task_id):
            raise AnswerError("The server's answer holds a task id that is none; is this the right server?")
        return cls(
            id=task_id,
            model=need(document, "model", str),
            model_version=want(document, "model_version", int),
            image_digest=want(document, "image_digest", str),
            state=need(document, "state", str),
            terminal=need(document, "terminal", bool),
            reason_code=want(document, "reason_code", str),
            reason=want(document, "reason", str),
            exit_code=want(document, "exit_code", int),
            attempt=want(document, "attempt", int) or 0,
            priority=want(document, "priority", int) or 0,
            queue_position=want(document, "queue_position", int),
            waiting_for=want(document, "waiting_for", str),
            created_at=moment_of(document, "created_at"),
            started_at=moment_of(document, "started_at"),
            finished_at=moment_of(document, "finished_at"),
            expires_at=moment_of(document, "expires_at"),
            input=part(document, "input", BlobFacts.from_json),
            output=part(document, "output", BlobFacts.from_json),
            progress=part(document, "progress", Progress.from_json),
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """One registered model at its newest version; ``limits`` and ``sandbox`` are as the server names them."""

    id: str
    description: str | None
    image: str
    version: int | None
    enabled: bool
    use_gpu: bool
    pull_policy: str | None
    image_id: str | None
    image_digest: str | None
    content: BlobFacts | None
    sandbox: Json
    limits: Json
    # What it asks of a node beyond its limits.
    gpu_memory_bytes: int | None
    node_labels: Mapping[str, str]
    created_at: datetime | None
    updated_at: datetime | None
    # Only in the answer to registering or changing it: what keeps it from being run as things are.
    warnings: tuple[str, ...] = ()
    document: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a model; its ``human_readable_id`` is the ``id`` here, its ``container_tag`` the ``image``."""
        return cls(
            id=need(document, "human_readable_id", str),
            description=want(document, "description", str),
            image=need(document, "container_tag", str),
            version=want(document, "version", int),
            enabled=want(document, "enabled", bool) is not False,
            use_gpu=want(document, "use_gpu", bool) is True,
            pull_policy=want(document, "pull_policy", str),
            image_id=want(document, "image_id", str),
            image_digest=want(document, "image_digest", str),
            content=part(document, "content", BlobFacts.from_json),
            sandbox=part(document, "sandbox", dict) or {},
            limits=part(document, "limits", dict) or {},
            gpu_memory_bytes=want(document, "gpu_memory_bytes", int),
            node_labels=part(document, "node_labels", dict) or {},
            created_at=moment_of(document, "created_at"),
            updated_at=moment_of(document, "updated_at"),
            warnings=names(document, "warnings") or (),
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key. ``secret`` is there only in the answer that created it, and never again."""

    id: str
    name: str
    role: str
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    # The only models whose tasks a worker key may take; None: those of all.
    models: tuple[str, ...] | None = None
    secret: str | None = field(repr=False, default=None)
    document: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a key, new or listed."""
        number = document.get("id")
        return cls(
            id=str(number) if isinstance(number, int) else need(document, "id", str),
            name=need(document, "name", str),
            role=need(document, "role", str),
            created_at=moment_of(document, "created_at"),
            expires_at=moment_of(document, "expires_at"),
            revoked_at=moment_of(document, "revoked_at"),
            last_used_at=moment_of(document, "last_used_at"),
            models=names(document, "models"),
            secret=want(document, "key", str),
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A part of a list; ``next_cursor`` is None at its end."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    """Bytes of a task's log; ask for ``next_offset`` next. ``complete``: the log ends with this chunk."""

    data: bytes
    next_offset: int
    complete: bool


def read_page(document: Json, read: Callable[[Json], T]) -> Page[T]:
    """Read ``{"items": […], "next_cursor": …}``."""
    items = need(document, "items", list)
    if not all(isinstance(item, Mapping) for item in items):
        raise AnswerError("The server's list holds something that is not an object.")
    return Page(items=tuple(read(item) for item in items), next_cursor=want(document, "next_cursor", str))
