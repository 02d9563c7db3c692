"""How long the data of ended tasks is kept, each kind for its own time, and the parting with it afterwards.

When a task ends, its row is given the moment at which its input, its output and its log expire; nothing of a
task that has not ended ever does. The rows stay, and say what is gone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Connection, Row, case, cast, func, literal, select, update

from private_api.decisions.retention import DataKind, Retention
from private_api.store.logs import delete_log
from private_api.store.references import unused_among
from private_api.store.tables import models, now_ms, tasks

# One pass handles at most this many tasks of each kind, so that no transaction grows long. A log may have
# very many rows of its own.
_BATCH = {DataKind.INPUT: 200, DataKind.OUTPUT: 200, DataKind.LOG: 20}


def ended_now(retention: Retention) -> dict[str, Any]:
    """The columns of ``tasks`` that say when a task ended and when each kind of its data expires.

    To be used in an UPDATE of ``tasks``, of one row or of many: each row asks its own model.
    """
    return {
        "finished_at": now_ms(),
        **{f"{kind.value}_expires_at": _expires_at(kind, retention.seconds_of(kind)) for kind in DataKind},
    }


def purge_expired(connection: Connection) -> tuple[int, list[str]]:
    """Part with a batch of what is past its time; returns how much there was, and the blobs to delete."""
    keys: list[str] = []
    found = 0
    for kind in DataKind:
        rows = _due(connection, kind)
        found += len(rows)
        if rows:
            gone = {f"{kind.value}_purged_at": now_ms()}
            connection.execute(update(tasks).where(tasks.c.seq.in_([row.seq for row in rows])).values(gone))
        if kind is DataKind.LOG:
            for row in rows:
                delete_log(connection, row.id)
        else:
            keys += [key for row in rows if (key := row._mapping[f"{kind.value}_key"])]
    return found, unused_among(connection, keys) if keys else []


def _expires_at(kind: DataKind, server_seconds: float) -> Any:
    own = (
        select(models.c[f"{kind.value}_retention_seconds"])
        .where(models.c.id == tasks.c.model_id)
        .scalar_subquery()
    )
    seconds = func.coalesce(own, literal(server_seconds))
    return case((seconds > 0, now_ms() + cast(seconds * 1000, BigInteger)), else_=None)


def _due(connection: Connection, kind: DataKind) -> list[Row[Any]]:
    expires_at, purged_at = tasks.c[f"{kind.value}_expires_at"], tasks.c[f"{kind.value}_purged_at"]
    query = (
        select(tasks.c.seq, tasks.c.id, tasks.c.input_key, tasks.c.output_key)
        .where(expires_at < now_ms(), purged_at.is_(None))
        .order_by(expires_at)
        .limit(_BATCH[kind])
        # What a retry has locked at this moment, or another purge, is left for the next pass.
        .with_for_update(skip_locked=True)
    )
    return list(connection.execute(query))
