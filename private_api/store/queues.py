"""How many tasks of a kind could run now, which are first in line, and whose turn it is to count them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.messages import SlotKind
from contracts.states import TaskState
from private_api.store.tables import duties, now_ms, tasks


def count_due(connection: Connection, kind: SlotKind) -> int:
    """How many queued tasks of ``kind`` a claim could have now; one that is to be retried later is not."""
    return connection.execute(select(func.count()).select_from(tasks).where(*_due(kind))).scalar_one()


def first_due(connection: Connection, kind: SlotKind, limit: int) -> list[str]:
    """The ids of the tasks that claims will take next, at most ``limit``."""
    query = select(tasks.c.id).where(*_due(kind)).order_by(tasks.c.priority.desc(), tasks.c.seq).limit(limit)
    return list(connection.execute(query).scalars())


def take_turn(connection: Connection, duty: str, gap_seconds: float) -> bool:
    """Whether no process has had its turn at ``duty`` for ``gap_seconds``; if so, it is ours."""
    ours = (
        update(duties)
        .where(duties.c.name == duty, duties.c.performed_at <= now_ms() - int(gap_seconds * 1000))
        .values(performed_at=now_ms())
    )
    if connection.execute(ours).rowcount:
        return True
    if connection.execute(select(duties.c.name).where(duties.c.name == duty)).first() is not None:
        return False
    try:
        with connection.begin_nested():
            connection.execute(insert(duties).values(name=duty, performed_at=now_ms()))
    except IntegrityError:
        # Another process was first, in this very moment.
        return False
    return True


def _due(kind: SlotKind) -> list[ColumnElement[Any]]:
    return [
        tasks.c.state == TaskState.QUEUED.value,
        tasks.c.kind == kind.value,
        tasks.c.not_before <= now_ms(),
    ]
