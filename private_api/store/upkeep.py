"""What the server must see to by itself: lost leases, overdue phases, data past its time, orphaned bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from contracts.messages import Failure
from contracts.reasons import ReasonCode
from contracts.states import LEASED_STATES, Phase, TaskState
from contracts.timing import LEASE_SECONDS
from private_api.store.database import current_ms
from private_api.store.leases import AttemptEnd, end_attempt, held_rows
from private_api.store.logs import delete_log
from private_api.store.tables import duties, model_versions, models, now_ms, tasks

# One pass handles at most this many rows of each sort, so that no transaction grows long.
_BATCH = 200


def since_last(connection: Connection, duty: str) -> float | None:
    """Seconds since a duty was last performed by any process, null if never; notes that it is done now."""
    now = current_ms(connection)
    last = connection.execute(select(duties.c.performed_at).where(duties.c.name == duty)).scalar()
    if last is None:
        connection.execute(insert(duties).values(name=duty, performed_at=now))
        return None
    connection.execute(update(duties).where(duties.c.name == duty).values(performed_at=now))
    return (now - int(last)) / 1000


def grant_full_period(connection: Connection) -> None:
    """Let every live lease last a full period from now: its holder had nobody to renew it with."""
    connection.execute(
        update(tasks)
        .where(tasks.c.state.in_(LEASED_STATES))
        .values(lease_expires_at=now_ms() + int(LEASE_SECONDS * 1000))
    )


def reap(connection: Connection, retention_ms: int) -> list[AttemptEnd]:
    """End every attempt whose lease has run out or whose phase has lasted too long."""
    lost = connection.execute(held_rows().where(tasks.c.lease_expires_at < now_ms()).limit(_BATCH)).all()
    ends = [end_attempt(connection, row, _WORKER_LOST, retention_ms) for row in lost]
    overdue = connection.execute(held_rows().where(tasks.c.phase_deadline_at < now_ms()).limit(_BATCH)).all()
    return ends + [end_attempt(connection, row, _overdue(row), retention_ms) for row in overdue]


def fail_queued_too_long(connection: Connection, limit_ms: int, retention_ms: int) -> list[str]:
    """Fail tasks that no worker took within ``limit_ms``; returns their ids."""
    result = connection.execute(
        update(tasks)
        .where(tasks.c.state == TaskState.QUEUED.value, tasks.c.created_at < now_ms() - limit_ms)
        .values(
            state=TaskState.FAILED.value,
            reason_code=ReasonCode.QUEUED_TOO_LONG.value,
            reason="No worker took the task within the server's limit; send it again when one is free.",
            finished_at=now_ms(),
            expires_at=now_ms() + retention_ms if retention_ms else None,
        )
        .returning(tasks.c.id)
    )
    return list(result.scalars())


def purge_expired(connection: Connection) -> list[str]:
    """Part with the data of tasks past their retention; returns blob keys to delete. The rows stay."""
    query = (
        select(tasks.c.seq, tasks.c.id, tasks.c.input_key, tasks.c.output_key)
        .where(tasks.c.expires_at < now_ms(), tasks.c.purged_at.is_(None))
        .limit(_BATCH)
    )
    keys: list[str] = []
    for row in connection.execute(query).all():
        connection.execute(
            update(tasks).where(tasks.c.seq == row.seq).values(purged_at=now_ms(), log_size=0, log_base=0)
        )
        delete_log(connection, row.id)
        keys += [key for key in (row.output_key, row.input_key) if key and not _is_used(connection, key)]
    return keys


def unused_among(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of ``keys`` that no row refers to."""
    return [key for key in keys if not _is_used(connection, key)]


def _is_used(connection: Connection, key: str) -> bool:
    kind = key.partition("/")[0]
    if kind == "contents":
        query = (
            select(model_versions.c.id)
            .join(models, models.c.id == model_versions.c.model_id)
            .where(model_versions.c.content_key == key, models.c.deleted_at.is_(None))
        )
    else:
        column = tasks.c.input_key if kind == "inputs" else tasks.c.output_key
        found = column == key if kind == "inputs" else (column == key) | (tasks.c.pending_key == key)
        query = select(tasks.c.seq).where(found, tasks.c.purged_at.is_(None))
    return connection.execute(query.limit(1)).first() is not None


_WORKER_LOST = Failure(
    reason_code=ReasonCode.WORKER_LOST,
    reason="The worker stopped answering.",
    exit_code=None,
    durations={},
)


def _overdue(row: Row[Any]) -> Failure:
    phase = Phase(row.phase)
    return Failure(
        reason_code=ReasonCode.PHASE_TIMED_OUT,
        reason=f"The worker stayed in its phase '{phase.value}' beyond the limit.",
        exit_code=None,
        durations={},
    )
