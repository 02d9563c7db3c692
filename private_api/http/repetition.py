"""Creates a thing once, however often the request with its Idempotency-Key arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import request
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from contracts.names import IDEMPOTENCY_KEY_HEADER
from contracts.problems import ProblemCode
from private_api.http.authentication import Caller
from private_api.store.database import Database
from private_api.store.idempotency import IdempotencyConflictError, recall, remember
from serving.problems import ProblemError

# Creates the thing in the given transaction; returns its id and the document that answers the request.
Create = Callable[[Connection], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Answer:
    """What a creating request is answered, and whether it was this request that created."""

    created_id: str
    document: dict[str, Any]
    is_first: bool


def create_once(database: Database, owner: Caller, fingerprint: str, create: Create) -> Answer:
    """Create, or give the first answer again; raises the problem ``idempotency_conflict``."""
    key = idempotency_key()
    if key is None:
        with database.write() as connection:
            created_id, document = create(connection)
        return Answer(created_id, document, is_first=True)
    try:
        return _create_or_recall(database, owner.key.id, key, fingerprint, create)
    except IntegrityError:
        # Two of the same request at the same moment: the other one was first.
        return _create_or_recall(database, owner.key.id, key, fingerprint, create)


def idempotency_key() -> str | None:
    """The request's Idempotency-Key; raises a problem for one that cannot be used."""
    key = request.headers.get(IDEMPOTENCY_KEY_HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= 255 or not key.isprintable():
        raise ProblemError(
            ProblemCode.INVALID_FIELD,
            "Idempotency-Key must be 1 to 255 printable characters, such as a UUID.",
        )
    return key


def _create_or_recall(
    database: Database, owner_id: str, key: str, fingerprint: str, create: Create
) -> Answer:
    with database.write() as connection:
        try:
            known = recall(connection, owner_id, key, fingerprint)
        except IdempotencyConflictError as error:
            raise ProblemError(
                ProblemCode.IDEMPOTENCY_CONFLICT,
                "This Idempotency-Key came with another request before; use a new key for a new request.",
            ) from error
        if known is not None:
            return Answer(known["id"], known["document"], is_first=False)
        created_id, document = create(connection)
        remember(connection, owner_id, key, fingerprint, {"id": created_id, "document": document})
    return Answer(created_id, document, is_first=True)
