"""Nodes: what each last said of itself, whose its name is, and whether an operator wants it to take tasks.

A report is one small statement. A name belongs to the instance that was last heard under it, until that one
says farewell or has been silent for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from contracts.nodes import NodeReport
from contracts.states import LEASED_STATES
from private_api.decisions.placement import NodeOffer, NodeState, node_state, offers_of
from private_api.store.keys import is_valid
from private_api.store.tables import api_keys, models, nodes, now_ms, tasks

# A node reports more often than this. One that has not is silent, and its name may become another's.
SILENT_SECONDS = 30.0
_SILENT = nodes.c.heard_at < now_ms() - int(SILENT_SECONDS * 1000)
_HAS_ROOM = nodes.c.report["disk"]["has_room"].as_boolean()


class NameTakenError(Exception):
    """Another instance was heard under this name a moment ago."""


class NodeInUseError(Exception):
    """The node is still heard of."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as it is kept. Times in milliseconds since 1970."""

    name: str
    state: NodeState
    draining: bool
    key_id: str
    report: NodeReport
    first_heard_at: int
    heard_at: int

    @property
    def offer(self) -> NodeOffer:
        """The node as placement sees it."""
        return NodeOffer(name=self.name, state=self.state, slots=offers_of(self.report))


@dataclass(frozen=True, kw_only=True)
class LastReport:
    """A node's last word about itself, without its images, and an operator's about it."""

    report: NodeReport
    draining: bool
    # Whether it is known under another key, one that opens doors.
    is_foreign: bool


@dataclass(frozen=True, kw_only=True)
class Work:
    """What runs in a slot, by the database's own word."""

    task_id: str
    model: str


def out_of_work() -> ColumnElement[bool]:
    """The rows of nodes whose slots take nothing now, as the database can tell."""
    return or_(nodes.c.left, nodes.c.draining, _SILENT)


def note_report(connection: Connection, name: str, key_id: str, report: NodeReport) -> bool:
    """Keep a node's word about itself; returns whether it is to take no tasks. Raises ``NameTakenError``.

    What an operator said of the name stays so when another instance takes it over.
    """
    said = {
        "instance": report.instance,
        "key_id": key_id,
        "report": report.to_json(),
        "left": report.leaving,
        "heard_at": now_ms(),
    }
    is_its_own = or_(nodes.c.instance == report.instance, or_(nodes.c.left, _SILENT) & _may_follow(key_id))
    noted = update(nodes).where(nodes.c.name == name, is_its_own).values(said).returning(nodes.c.draining)
    draining = connection.execute(noted).scalar()
    if draining is not None:
        return bool(draining)
    try:
        with connection.begin_nested():
            connection.execute(
                insert(nodes).values(name=name, draining=False, first_heard_at=now_ms(), **said)
            )
    except IntegrityError as error:
        raise NameTakenError from error
    return False


def find_node(connection: Connection, name: str) -> Node | None:
    """The node with this name."""
    row = connection.execute(select(*_COLUMNS).where(nodes.c.name == name)).one_or_none()
    return None if row is None else _node(row)


def offer_in(name: str, report: NodeReport, *, draining: bool) -> NodeOffer:
    """What a node offers that has reported this just now."""
    state = node_state(left=report.leaving, silent=False, draining=draining, has_room=report.disk.has_room)
    return NodeOffer(name=name, state=state, slots=offers_of(report))


def find_report(connection: Connection, name: str, key_id: str) -> LastReport | None:
    """What a claim with this key must know of the node of this name; null where it never reported."""
    is_ours = _may_follow(key_id).label("is_ours")
    query = select(nodes.c.report, nodes.c.draining, is_ours).where(nodes.c.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    # Claims are many, and no claim looks at the images.
    report = NodeReport.from_json({**row.report, "images": []})
    return LastReport(report=report, draining=row.draining, is_foreign=not row.is_ours)


def list_nodes(connection: Connection, *, after: str, limit: int | None = None) -> Sequence[Node]:
    """Nodes in the order of their names, those that are gone too, from the one after ``after`` on."""
    query = select(*_COLUMNS).where(nodes.c.name > after).order_by(nodes.c.name).limit(limit)
    return [_node(row) for row in connection.execute(query)]


def list_offers(connection: Connection) -> Sequence[NodeOffer]:
    """All nodes as placement sees them."""
    return [_node(row).offer for row in connection.execute(select(*_COLUMNS))]


def work_of(connection: Connection, names: Iterable[str]) -> dict[tuple[str, str], Work]:
    """What runs on these nodes, by node and slot."""
    query = (
        select(tasks.c.node, tasks.c.slot, tasks.c.id, models.c.human_readable_id)
        .join(models, models.c.id == tasks.c.model_id)
        .where(tasks.c.state.in_(LEASED_STATES), tasks.c.node.in_(list(names)))
    )
    return {
        (row.node, row.slot): Work(task_id=row.id, model=row.human_readable_id)
        for row in connection.execute(query)
    }


def set_draining(connection: Connection, name: str, *, draining: bool) -> bool:
    """Say whether the node is to take no tasks; returns whether there is such a node."""
    result = connection.execute(update(nodes).where(nodes.c.name == name).values(draining=draining))
    return result.rowcount > 0


def forget_node(connection: Connection, name: str) -> bool:
    """Forget a node that is gone; returns whether there was one. Raises ``NodeInUseError``."""
    gone = delete(nodes).where(nodes.c.name == name, or_(nodes.c.left, _SILENT))
    if connection.execute(gone).rowcount:
        return True
    if find_node(connection, name) is not None:
        raise NodeInUseError
    return False


def count_states(connection: Connection) -> dict[NodeState, int]:
    """How many nodes stand how, zeros included."""
    facts = (nodes.c.left, _SILENT.label("silent"), nodes.c.draining, _HAS_ROOM.label("has_room"))
    parts = select(*facts).subquery()
    found = dict.fromkeys(NodeState, 0)
    for row in connection.execute(select(*parts.c, func.count().label("number")).group_by(*parts.c)):
        told = {name: bool(row._mapping[name]) for name in ("left", "silent", "draining", "has_room")}
        found[node_state(**told)] += row.number
    return found


def _may_follow(key_id: str) -> ColumnElement[bool]:
    """Whether this key may take over a free name: none is taken from another key that is still valid."""
    valid = exists().where(api_keys.c.id == nodes.c.key_id, *is_valid())
    return or_(nodes.c.key_id == key_id, ~valid)


_COLUMNS = [*nodes.c, _SILENT.label("silent")]


def _node(row: Row[Any]) -> Node:
    report = NodeReport.from_json(row.report)
    state = node_state(
        left=row.left, silent=bool(row.silent), draining=row.draining, has_room=report.disk.has_room
    )
    return Node(
        name=row.name,
        state=state,
        draining=row.draining,
        key_id=row.key_id,
        report=replace(report, leaving=row.left),
        first_heard_at=row.first_heard_at,
        heard_at=row.heard_at,
    )
