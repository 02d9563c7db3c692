"""Tasks as their owners see them: accepted, listed, canceled, removed. What workers do is in ``leases``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from contracts.messages import BlobFacts, SlotKind
from contracts.reasons import ReasonCode
from contracts.states import LEASED_STATES, TERMINAL_STATES, Phase, TaskState
from private_api.decisions.retention import Retention
from private_api.store.logs import delete_log
from private_api.store.models import Model
from private_api.store.references import unused_among
from private_api.store.retention import ended_now
from private_api.store.tables import model_versions, models, now_ms, tasks

# Counting further would cost more than the number is worth to anybody.
_COUNTED_POSITIONS = 10_000


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with the names of its model and version."""

    seq: int
    id: str
    owner_id: str
    model: str
    model_version: int
    model_id: int
    version_id: int
    kind: SlotKind
    priority: int
    state: TaskState
    phase: Phase | None
    reason_code: ReasonCode | None
    reason: str | None
    exit_code: int | None
    attempt: int
    cancel_requested: bool
    input_key: str
    input_size: int
    input_sha256: str
    output_key: str | None
    output_size: int | None
    output_sha256: str | None
    image_digest: str | None
    progress_fraction: float | None
    progress_message: str | None
    log_size: int
    durations: dict[str, float]
    created_at: int
    started_at: int | None
    finished_at: int | None
    input_expires_at: int | None
    output_expires_at: int | None
    log_expires_at: int | None
    input_purged_at: int | None
    output_purged_at: int | None
    log_purged_at: int | None
    request_id: str | None

    @property
    def ended(self) -> bool:
        """Whether the task is in a terminal state."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows; null means any."""

    owner_id: str | None = None
    state: TaskState | None = None
    model: str | None = None
    created_after: int | None = None
    created_before: int | None = None


_NAMED = {
    "model": models.c.human_readable_id.label("model"),
    "model_version": model_versions.c.number.label("model_version"),
}
_OWN_COLUMNS = [tasks.c[field.name] for field in fields(Task) if field.name not in _NAMED]
_COLUMNS = [_NAMED[field.name] if field.name in _NAMED else tasks.c[field.name] for field in fields(Task)]
_TASKS: Select[Any] = (
    select(*_COLUMNS)
    .join(models, models.c.id == tasks.c.model_id)
    .join(model_versions, model_versions.c.id == tasks.c.version_id)
)


def new_task_id() -> str:
    """An id that nobody can guess: 128 random bits."""
    return secrets.token_hex(16)


def add_task(
    connection: Connection,
    *,
    owner_id: str,
    model: Model,
    input_key: str,
    facts: BlobFacts,
    priority: int,
    request_id: str | None,
) -> Task:
    """Accept a task for the present version of ``model``; from the commit on it is never lost."""
    row = connection.execute(
        insert(tasks)
        .values(
            id=new_task_id(),
            owner_id=owner_id,
            model_id=model.id,
            version_id=model.version_id,
            kind=model.kind.value,
            priority=priority,
            state=TaskState.QUEUED.value,
            attempt=0,
            spoiled=0,
            cancel_requested=False,
            queued_at=now_ms(),
            not_before=0,
            token=0,
            input_key=input_key,
            input_size=facts.size_bytes,
            input_sha256=facts.sha256,
            log_size=0,
            log_base=0,
            durations={},
            created_at=now_ms(),
            request_id=request_id,
        )
        .returning(*_OWN_COLUMNS)
    ).one()
    return _task({**row._mapping, "model": model.human_readable_id, "model_version": model.version})


def find_task(connection: Connection, task_id: str) -> Task | None:
    """The task with this id, whoever owns it."""
    row = connection.execute(_TASKS.where(tasks.c.id == task_id)).one_or_none()
    return None if row is None else _task(row._mapping)


def list_tasks(
    connection: Connection, chosen: TaskFilter, *, before_seq: int | None, limit: int
) -> Sequence[Task]:
    """Tasks, newest first, from the one before ``before_seq`` on."""
    conditions = []
    if before_seq is not None:
        conditions.append(tasks.c.seq < before_seq)
    if chosen.created_after is not None:
        conditions.append(tasks.c.created_at >= chosen.created_after)
    if chosen.created_before is not None:
        conditions.append(tasks.c.created_at < chosen.created_before)
    exact: dict[ColumnElement[Any], Any] = {}
    if chosen.model is not None:
        # Asked for first: with the numbers at hand the database finds their tasks by an index, where it would
        # else go through everybody's and look at the name of each one's model. Deleted namesakes count too.
        named = select(models.c.id).where(models.c.human_readable_id == chosen.model)
        ids = connection.execute(named).scalars().all()
        if len(ids) == 1:
            exact[tasks.c.model_id] = ids[0]
        else:
            conditions.append(tasks.c.model_id.in_(ids))
    if chosen.owner_id is not None:
        exact[tasks.c.owner_id] = chosen.owner_id
    if chosen.state is not None:
        exact[tasks.c.state] = chosen.state.value
    conditions += [column == value for column, value in list(exact.items())[:-1]]
    order = [tasks.c.seq.desc()]
    if exact:
        # The last of them as a range by which the list is ordered first: only the filter's own index has this
        # order. Else PostgreSQL may walk through everybody's tasks from the newest on, since it cannot know
        # that the ones wanted are the oldest.
        column, value = exact.popitem()
        conditions.append(column.between(value, value))
        order.insert(0, column.desc())
    query = _TASKS.where(*conditions).order_by(*order).limit(limit)
    return [_task(row._mapping) for row in connection.execute(query)]


def request_cancel(connection: Connection, task: Task, retention: Retention) -> bool:
    """Cancel a queued task at once; ask the worker of a leased one to stop. An ended task stays as it is.

    Returns whether the task has ended by this.
    """
    row = _locked(connection, task.id)
    if row is None:
        return False
    if row.state == TaskState.QUEUED:
        values = {
            "state": TaskState.CANCELED.value,
            "reason_code": ReasonCode.CANCELED_BY_USER.value,
            "reason": "Canceled before it started.",
            **ended_now(retention),
        }
    elif row.state in LEASED_STATES:
        values = {"cancel_requested": True}
    else:
        return False
    connection.execute(update(tasks).where(tasks.c.id == task.id).values(values))
    return "state" in values


def delete_task(connection: Connection, task: Task) -> list[str]:
    """Forget a task and its log; returns the keys of the blobs that nobody needs any more.

    A worker that still runs it is told ``stale_lease`` at its next word, and stops.
    """
    row = _locked(connection, task.id)
    if row is None:
        return []
    connection.execute(delete(tasks).where(tasks.c.id == task.id))
    delete_log(connection, task.id)
    keys = [key for key in (row.pending_key, row.output_key, row.input_key) if key]
    return unused_among(connection, keys)


def lock_input(connection: Connection, task: Task) -> bool:
    """Whether the task's input is still there; it stays there until the transaction ends."""
    row = _locked(connection, task.id)
    return row is not None and row.input_purged_at is None


def queue_position(connection: Connection, task: Task) -> int | None:
    """How many tasks of its kind a queued task has before it, 0 being next; counted up to ten thousand."""
    if task.state is not TaskState.QUEUED:
        return None
    # Two ranges of the queue's index; in one condition they would have it read to its end.
    before = (
        tasks.c.priority > task.priority,
        (tasks.c.priority == task.priority) & (tasks.c.seq < task.seq),
    )
    ahead = 0
    for part in before:
        rows = (
            select(tasks.c.seq)
            .where(tasks.c.state == TaskState.QUEUED.value, tasks.c.kind == task.kind.value, part)
            .limit(_COUNTED_POSITIONS)
        )
        ahead += connection.execute(select(func.count()).select_from(rows.subquery())).scalar_one()
    return min(ahead, _COUNTED_POSITIONS)


def _locked(connection: Connection, task_id: str) -> Row[Any] | None:
    return connection.execute(select(tasks).where(tasks.c.id == task_id).with_for_update()).one_or_none()


def _task(row: Mapping[Any, Any]) -> Task:
    values = {str(name): value for name, value in row.items()}
    values["kind"] = SlotKind(values["kind"])
    values["state"] = TaskState(values["state"])
    values["phase"] = Phase(values["phase"]) if values["phase"] else None
    values["reason_code"] = ReasonCode(values["reason_code"]) if values["reason_code"] else None
    return Task(**values)
