"""What the server must see to by itself about tasks: lost leases, overdue phases, tasks that nobody takes."""

from __future__ import annotations

import contextlib
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.messages import Failure
from contracts.reasons import ReasonCode
from contracts.states import LEASED_STATES, Phase, TaskState
from contracts.timing import LEASE_SECONDS
from private_api.decisions.retention import Retention
from private_api.store.database import current_ms
from private_api.store.leases import AttemptEnd, end_attempt, held_rows
from private_api.store.retention import ended_now
from private_api.store.tables import duties, now_ms, tasks

# One pass handles at most this many rows of each sort, so that no transaction grows long.
_BATCH = 200


def since_last(connection: Connection, duty: str) -> float | None:
    """Seconds since a duty was last performed by any process, null if never; notes that it is done now."""
    now = current_ms(connection)
    last = connection.execute(select(duties.c.performed_at).where(duties.c.name == duty)).scalar()
    if last is None:
        # Another process may be at the same point, and is then the first.
        with contextlib.suppress(IntegrityError), connection.begin_nested():
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


def reap(connection: Connection, retention: Retention) -> list[AttemptEnd]:
    """End every attempt whose lease has run out or whose phase has lasted too long."""
    lost = connection.execute(held_rows().where(tasks.c.lease_expires_at < now_ms()).limit(_BATCH)).all()
    ends = [end_attempt(connection, row, _WORKER_LOST, retention) for row in lost]
    overdue = connection.execute(held_rows().where(tasks.c.phase_deadline_at < now_ms()).limit(_BATCH)).all()
    return ends + [end_attempt(connection, row, _overdue(row), retention) for row in overdue]


def fail_queued_too_long(connection: Connection, limit_ms: int, retention: Retention) -> list[str]:
    """Fail tasks that no worker took within ``limit_ms``, at most a batch of them; returns their ids."""
    overdue = (
        select(tasks.c.seq)
        .where(tasks.c.state == TaskState.QUEUED.value, tasks.c.queued_at < now_ms() - limit_ms)
        .order_by(tasks.c.queued_at)
        .limit(_BATCH)
    )
    result = connection.execute(
        update(tasks)
        .where(tasks.c.seq.in_(overdue), tasks.c.state == TaskState.QUEUED.value)
        .values(
            state=TaskState.FAILED.value,
            reason_code=ReasonCode.QUEUED_TOO_LONG.value,
            reason="No worker took the task within the server's limit; send it again when one is free.",
            **ended_now(retention),
        )
        .returning(tasks.c.id)
    )
    return list(result.scalars())


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
