"""Reads the fields of the server's JSON: a wrong type is as good as nothing, unless the field is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from inference_server_client.errors import AnswerError

T = TypeVar("T")
Json = Mapping[str, Any]


def need(document: Json, name: str, kind: type[T]) -> T:
    """The value of a field, which must be of ``kind``; raises ``AnswerError`` that names it."""
    value = want(document, name, kind)
    if value is None:
        raise AnswerError(
            f"The server's answer lacks {name!r}, or it has a wrong type; is this the right server?"
        )
    return value


def want(document: Json, name: str, kind: type[T]) -> T | None:
    """The value of a field, None where it is absent or of another kind."""
    value = document.get(name)
    # In Python a bool is an int; in JSON it is none.
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    return None


def names(document: Json, name: str) -> tuple[str, ...] | None:
    """A list of texts, None where there is no list."""
    value = document.get(name)
    return tuple(str(one) for one in value) if isinstance(value, list) else None


def part(document: Json, name: str, read: Callable[[Json], T]) -> T | None:
    """An object read by ``read``, None where there is none."""
    value = document.get(name)
    return read(value) if isinstance(value, Mapping) else None


def parts(document: Json, name: str, read: Callable[[Json], T]) -> tuple[T, ...]:
    """The objects of a list, each read by ``read``; what is no object is left out."""
    value = document.get(name)
    found = value if isinstance(value, list) else []
    return tuple(read(item) for item in found if isinstance(item, Mapping))


def moment_of(document: Json, name: str) -> datetime | None:
    """The time that ``document`` states under ``name``, None where it states none that can be read."""
    text = document.get(name)
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
