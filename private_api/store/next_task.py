"""The next task for a slot: the first in line of those whose model the slot may run.

``claims`` enters. Where every model that waits fits, one look at the queue finds the next task. Where some
do not, each fitting model's own line is asked for its first, so that what lies before them costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, cast, func, or_, select

from contracts.messages import SlotKind
from contracts.states import TaskState
from private_api.decisions.placement import Offer, fits, requirement_of
from private_api.store.tables import models, now_ms, tasks

# The order in which tasks are claimed, and that of each model's own line after another's.
_LINE = (tasks.c.priority.desc(), tasks.c.seq)
_LINES = (tasks.c.model_id, *_LINE)
# The head start of other nodes. On one that is alone, an attempt after a failure begins so much later.
OTHERS_FIRST_MS = 3000


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Who asks: the key, and what its node's last report says of the slot.

    ``models`` are the human-readable ids that the key is bound to, null for all. ``offers`` has one for each
    kind that was asked for, and is null for a node that never reported: it is taken at its word.
    """

    key_id: str
    node: str
    models: frozenset[str] | None = None
    offers: Sequence[Offer] | None = None
    # So many leases its node may hold.
    most_leases: int = 256

    @property
    def takes_anything(self) -> bool:
        """Whether no model could be refused it."""
        return self.models is None and self.offers is None

    def takes(self, kind: SlotKind, model: Row[Any]) -> bool:
        """Whether it may run this model, a row of ``_waiting_models``."""
        if self.models is not None and model.human_readable_id not in self.models:
            return False
        if self.offers is None:
            return True
        asked = requirement_of(kind, model.limits, model.gpu_memory_bytes, model.node_labels)
        return any(fits(asked, offer) for offer in self.offers)


def next_task(connection: Connection, kinds: Sequence[SlotKind], slot: Slot, *, lock: bool) -> int | None:
    """The ``seq`` of the next task for the slot; with ``lock``, nobody else gets it in this transaction."""
    # One question for each kind: the index holds each kind in order, and the better of two is soon told.
    best: tuple[int, int] | None = None
    for kind in kinds:
        row = _next_of_kind(connection, kind, slot, lock=lock)
        if row is not None and (best is None or (-row.priority, row.seq) < best):
            best = (-row.priority, row.seq)
    return None if best is None else best[1]


def count_due_by_model(connection: Connection, kind: SlotKind, most: int) -> list[tuple[Row[Any], int]]:
    """The models with tasks that could be claimed now, each as ``Slot.takes`` wants it, with their number.

    None is counted beyond ``most``.
    """
    found = []
    for model in connection.execute(_waiting_models(kind)).all():
        due = (
            select(tasks.c.seq)
            .where(*_queued(kind), _is_of_model(model.id), tasks.c.not_before <= now_ms())
            .order_by(*_LINES)
            .limit(most)
        )
        number = connection.execute(select(func.count()).select_from(due.subquery())).scalar_one()
        if number:
            found.append((model, int(number)))
    return found


def _next_of_kind(connection: Connection, kind: SlotKind, slot: Slot, *, lock: bool) -> Row[Any] | None:
    if slot.takes_anything:
        return connection.execute(_first(kind, slot, lock=lock)).first()
    waiting = connection.execute(_waiting_models(kind)).all()
    fitting = [model.id for model in waiting if slot.takes(kind, model)]
    if not fitting:
        return None
    if len(fitting) == len(waiting):
        row = connection.execute(_first(kind, slot, lock=lock)).first()
        # A task of another model may have come in between.
        if row is None or row.model_id in fitting:
            return row
    heads = connection.execute(_heads(kind, slot, fitting)).all()
    for head in sorted((head for head in heads if head.seq is not None), key=lambda h: (-h.priority, h.seq)):
        if not lock:
            return head
        # Another claim may have the first of this line; then its second, or the next line's first, will do.
        row = connection.execute(_first(kind, slot, lock=True, model_id=head.id)).first()
        if row is not None:
            return row
    return None


def _first(kind: SlotKind, slot: Slot, *, lock: bool, model_id: int | None = None) -> Select[Any]:
    query = (
        select(tasks.c.seq, tasks.c.priority, tasks.c.model_id)
        .where(*_queued(kind), *_is_due(slot))
        .order_by(*(_LINE if model_id is None else _LINES))
        .limit(1)
    )
    if model_id is not None:
        query = query.where(_is_of_model(model_id))
    # PostgreSQL: racing claims take different rows instead of waiting. SQLite has one writer anyway.
    return query.with_for_update(skip_locked=True) if lock else query


def _waiting_models(kind: SlotKind) -> Select[Any]:
    """The models that have a task in the queue, found by leaping through the index from one to the next."""
    # From below the first: without a lower bound PostgreSQL may walk through the whole queue instead.
    steps = select(cast(0, models.c.id.type).label("id")).cte("steps", recursive=True)
    lowest = (
        select(tasks.c.model_id)
        .where(*_queued(kind), tasks.c.model_id > steps.c.id)
        .order_by(*_LINES)
        .limit(1)
    )
    steps = steps.union_all(select(lowest.scalar_subquery()).where(steps.c.id.is_not(None)))
    asks = (models.c.limits, models.c.gpu_memory_bytes, models.c.node_labels)
    return select(models.c.id, models.c.human_readable_id, *asks).join(steps, models.c.id == steps.c.id)


def _heads(kind: SlotKind, slot: Slot, model_ids: Sequence[int]) -> Select[Any]:
    """The first in line of each of these models; nulls where none is due."""

    def first(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return (
            select(column)
            .where(*_queued(kind), _is_of_model(models.c.id), *_is_due(slot))
            .order_by(*_LINES)
            .limit(1)
            .correlate(models)
            .scalar_subquery()
        )

    heads = (first(tasks.c.seq).label("seq"), first(tasks.c.priority).label("priority"))
    return select(models.c.id, *heads).where(models.c.id.in_(model_ids))


def _is_of_model(model_id: Any) -> ColumnElement[bool]:
    """That a task is in this model's line.

    An equation would let the order by model fall away, and with it the need for the index that has all lines.
    """
    return tasks.c.model_id.between(model_id, model_id)


def _is_due(slot: Slot) -> tuple[ColumnElement[bool], ...]:
    """What may be claimed now; not yet by the node that has just spoiled its last attempt.

    Where there is another, that one has a little time to be first: a node at which every attempt fails, or
    whose word is not worth much, must not be handed the same task five times while others wait.
    """
    elsewhere = or_(tasks.c.spoiled == 0, tasks.c.node != slot.node, tasks.c.key_id != slot.key_id)
    long_due = tasks.c.not_before <= now_ms() - OTHERS_FIRST_MS
    return tasks.c.not_before <= now_ms(), or_(long_due, tasks.c.key_id.is_(None), elsewhere)


def _queued(kind: SlotKind) -> tuple[ColumnElement[bool], ...]:
    # Written into the statement: with a parameter SQLite could not know that a partial index fits.
    return (
        tasks.c.state == bindparam(None, TaskState.QUEUED.value, literal_execute=True),
        tasks.c.kind == kind.value,
    )
