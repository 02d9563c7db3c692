"""Questions for the metrics: how much waits and runs, and since when. They find an index and lock nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from contracts.messages import SlotKind
from contracts.states import TaskState
from private_api.decisions.placement import NodeState
from private_api.store.nodes import count_states
from private_api.store.tables import now_ms, tasks
from private_api.store.workers import count_able


@dataclass(frozen=True, kw_only=True)
class LiveTasks:
    """What has not ended, and who is there to work on it."""

    # By kind and state, zeros included.
    counts: dict[tuple[SlotKind, TaskState], int]
    # Since when the first of those that wait has waited; 0 where nothing waits.
    oldest_queued_seconds: dict[SlotKind, float]
    # Slots heard of within the last minute and a half, but for those of nodes that take nothing.
    slots: dict[SlotKind, int]
    # By how they stand, zeros included.
    nodes: dict[NodeState, int]


LIVE_STATES = (TaskState.QUEUED, TaskState.STARTING, TaskState.RUNNING)


def measure_live_tasks(connection: Connection) -> LiveTasks:
    """Count slots, and tasks that have not ended; those that have may be millions, and are counted then."""
    counts = {
        (kind, state): int(connection.execute(select(func.count()).where(*_such(kind, state))).scalar_one())
        for kind in SlotKind
        for state in LIVE_STATES
    }
    oldest = {kind: _oldest_queued_seconds(connection, kind) for kind in SlotKind}
    return LiveTasks(
        counts=counts,
        oldest_queued_seconds=oldest,
        slots=count_able(connection),
        nodes=count_states(connection),
    )


def _oldest_queued_seconds(connection: Connection, kind: SlotKind) -> float:
    first = (
        select(now_ms() - tasks.c.queued_at)
        .where(*_such(kind, TaskState.QUEUED))
        .order_by(tasks.c.queued_at)
        .limit(1)
    )
    return max(0.0, (connection.execute(first).scalar() or 0) / 1000)


def _such(kind: SlotKind, state: TaskState) -> tuple[ColumnElement[bool], ...]:
    # Written into the statement: with a parameter SQLite could not know that a partial index fits.
    return (
        tasks.c.state == bindparam(None, state.value, literal_execute=True),
        tasks.c.kind == bindparam(None, kind.value, literal_execute=True),
    )
