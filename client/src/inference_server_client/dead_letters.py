"""The calls about messages that no consumer could read, for an admin: ``client.dead_letters``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from inference_server_client.errors import AnswerError
from inference_server_client.reading import moment_of
from inference_server_client.transport import Call, Transport


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message: its ``body`` as text, or in Base64 where ``body_encoding`` says so; perhaps cut off."""

    received_at: datetime | None
    queue: str | None
    reason: str | None
    body: str
    body_encoding: str
    truncated: bool
    document: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read one of the server's list."""
        return cls(
            received_at=moment_of(document, "received_at"),
            queue=_text(document, "queue"),
            reason=_text(document, "reason"),
            body=_text(document, "body") or "",
            body_encoding=_text(document, "body_encoding") or "utf-8",
            truncated=document.get("truncated") is True,
            document=document,
        )


@dataclass(frozen=True, kw_only=True)
class DeadLetterList:
    """The oldest of them, and how many there are in all."""

    items: tuple[DeadLetter, ...]
    count: int
    document: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)


class DeadLetters:
    """Look at them, throw them away."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 100) -> DeadLetterList:
        """Up to ``limit`` (1..1000) of the oldest; they stay where they are."""
        document = self._transport.json(Call(method="GET", path="/v1/dead-letters", query={"limit": limit}))
        letters = document.get("dead_letters")
        if not isinstance(letters, list) or not all(isinstance(letter, dict) for letter in letters):
            raise AnswerError("The server's answer has no list of dead letters.")
        items = tuple(DeadLetter.from_json(letter) for letter in letters)
        return DeadLetterList(items=items, count=_count(document, "count"), document=document)

    def clear(self) -> int:
        """Throw all of them away; how many there were."""
        return _count(self._transport.json(Call(method="DELETE", path="/v1/dead-letters")), "removed")


def _count(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise AnswerError(f"The server's answer has no {name}.")
    return value


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
