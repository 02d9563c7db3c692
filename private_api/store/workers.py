"""Slots that have been heard of: noted when they ask for work and when they renew a lease."""

from __future__ import annotations

import contextlib

from sqlalchemy import Connection, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.messages import ClaimRequest, SlotKind
from private_api.store.nodes import out_of_work
from private_api.store.tables import nodes, now_ms, workers

# A slot that asks for work over and over is written down at most this often.
_HEARD_MS = 30_000
# One that is alive asks for work, or renews its lease, far more often than this.
SLOT_SILENT_MS = 90_000

# Heard of lately, and not of a node that has left, is silent or takes no tasks.
ABLE = (workers.c.heard_at > now_ms() - SLOT_SILENT_MS) & ~exists().where(
    nodes.c.name == workers.c.node, out_of_work()
)


def worker_is_noted(connection: Connection, request: ClaimRequest) -> bool:
    """Whether this slot has been written down recently enough."""
    query = select(func.count()).where(
        workers.c.node == request.node,
        workers.c.slot == request.slot,
        workers.c.kind.in_(request.kinds),
        workers.c.heard_at > now_ms() - _HEARD_MS,
    )
    return connection.execute(query).scalar_one() >= len(request.kinds)


def note_worker(connection: Connection, request: ClaimRequest) -> None:
    """Remember that this slot is alive and asks for work."""
    for kind in request.kinds:
        same = (
            (workers.c.node == request.node)
            & (workers.c.slot == request.slot)
            & (workers.c.kind == kind.value)
        )
        changed = connection.execute(update(workers).where(same).values(heard_at=now_ms()))
        if not changed.rowcount:
            values = {"node": request.node, "slot": request.slot, "kind": kind.value, "heard_at": now_ms()}
            # The same slot may ask twice at its first moment; either request's note will do.
            with contextlib.suppress(IntegrityError), connection.begin_nested():
                connection.execute(insert(workers).values(values))


def hear_of_slot(connection: Connection, node: str, slot: str, kind: str) -> None:
    """Note that a slot at work is alive, at most every ten seconds."""
    connection.execute(
        update(workers)
        .where(
            workers.c.node == node,
            workers.c.slot == slot,
            workers.c.kind == kind,
            workers.c.heard_at < now_ms() - _HEARD_MS,
        )
        .values(heard_at=now_ms())
    )


def has_unreported_slot(connection: Connection, kind: SlotKind) -> bool:
    """Whether a slot of this kind is there whose node never reported: what it has, nobody knows."""
    heard = exists().where(
        workers.c.kind == kind.value,
        workers.c.heard_at > now_ms() - SLOT_SILENT_MS,
        ~exists().where(nodes.c.name == workers.c.node),
    )
    return bool(connection.execute(select(heard)).scalar())


def count_able(connection: Connection) -> dict[SlotKind, int]:
    """How many slots of each kind could take a task, or have one."""
    found = dict.fromkeys(SlotKind, 0)
    rows = connection.execute(select(workers.c.kind, func.count()).where(ABLE).group_by(workers.c.kind))
    for kind, number in rows:
        found[SlotKind(kind)] = number
    return found


def forget_slots(connection: Connection, node: str) -> None:
    """Forget all slots of a node."""
    connection.execute(delete(workers).where(workers.c.node == node))
