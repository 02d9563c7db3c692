"""Remembers what a request with an Idempotency-Key was answered, so that its repetition creates nothing.

Read and written inside the transaction that creates the thing: either both are there or neither.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, delete, insert, select, tuple_

from private_api.store.tables import idempotency, now_ms

# One transaction forgets at most this many.
_BATCH = 1000


class IdempotencyConflictError(Exception):
    """The key was used for another request."""


def fingerprint_of(*parts: object) -> str:
    """A short form of a whole request: the same request always has the same one."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def recall(connection: Connection, owner_id: str, key: str, fingerprint: str) -> dict[str, Any] | None:
    """What this request was answered before, or null; raises ``IdempotencyConflictError``."""
    row = connection.execute(
        select(idempotency.c.fingerprint, idempotency.c.answer).where(
            idempotency.c.owner_id == owner_id, idempotency.c.key == key
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyConflictError
    answer: dict[str, Any] = row.answer
    return answer


def remember(
    connection: Connection, owner_id: str, key: str, fingerprint: str, answer: dict[str, Any]
) -> None:
    """Keep the answer for the next request with this key."""
    connection.execute(
        insert(idempotency).values(
            owner_id=owner_id, key=key, fingerprint=fingerprint, answer=answer, created_at=now_ms()
        )
    )


def forget_older_than(connection: Connection, age_ms: int) -> int:
    """Forget a batch of answers that nobody will ask for any more; returns how many there were."""
    old = (
        select(idempotency.c.owner_id, idempotency.c.key)
        .where(idempotency.c.created_at < now_ms() - age_ms)
        .order_by(idempotency.c.created_at)
        .limit(_BATCH)
    )
    same = tuple_(idempotency.c.owner_id, idempotency.c.key)
    return connection.execute(delete(idempotency).where(same.in_(old))).rowcount
