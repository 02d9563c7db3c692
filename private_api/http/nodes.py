"""The doors to nodes: a consumer reports and prepares itself, an admin looks, drains, resumes and forgets."""

from __future__ import annotations

import re

from flask import Blueprint, Response, jsonify

from contracts.nodes import NodeOrders, NodeReport
from contracts.problems import ProblemCode
from private_api.http.authentication import allow, caller
from private_api.http.documents import node_document
from private_api.http.downloads import send_blob
from private_api.http.fields import json_message, query_fields
from private_api.http.services import Services, services
from private_api.http.shapes import PageQuery
from private_api.store.keys import Role
from private_api.store.models import find_content
from private_api.store.nodes import (
    NameTakenError,
    NodeInUseError,
    find_node,
    forget_node,
    list_nodes,
    note_report,
    offer_in,
    set_draining,
    work_of,
)
from private_api.store.workers import forget_slots
from serving.problems import ProblemError

blueprint = Blueprint("nodes", __name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What a report may hold. A node that has more is none of ours, and its word is kept in the database.
_MOST_SLOTS, _MOST_GPUS, _MOST_LABELS, _MOST_IMAGES = 256, 256, 64, 200
_LONGEST = 512


@blueprint.post("/v1/nodes/<name>/report")
@allow(Role.WORKER)
def report(name: str) -> Response:
    """Keep a node's word about itself, and answer what is wanted of it."""
    here, owner = services(), caller()
    said: NodeReport = json_message(NodeReport.from_json)
    _check(name, said)
    try:
        with here.database.write() as connection:
            draining = note_report(connection, name, owner.key.id, said)
            if said.leaving:
                forget_slots(connection, name)
    except NameTakenError as error:
        raise ProblemError(
            ProblemCode.NODE_NAME_TAKEN,
            f"Another node is known as {name!r}. Set NODE_NAME to another name, or have an admin forget"
            f" that node when it is gone: infer nodes forget {name}",
        ) from error
    offer = offer_in(name, said, draining=draining)
    if here.fleet.note(offer):
        here.lookout.recall(node=name)
    wanted = [] if draining or said.leaving else here.fleet.wanted(offer, owner.key.models)
    orders = NodeOrders(report_seconds=here.fleet.report_seconds(), draining=draining, wanted=wanted)
    return jsonify(orders.to_json())


@blueprint.get("/v1/nodes/<name>/content/<sha256>")
@allow(Role.WORKER)
def content(name: str, sha256: str) -> Response:
    """Static content of a model that the node may run, before a task of it asks for it."""
    here, owner = services(), caller()
    if not _SHA256.fullmatch(sha256):
        raise ProblemError(ProblemCode.INVALID_FIELD, "Content is named by its SHA-256 in 64 small digits.")
    with here.database.read() as connection:
        node = find_node(connection, name)
        if node is None or node.key_id != owner.key.id:
            raise _unknown(name)
        found = find_content(connection, sha256, owner.key.models)
    if found is None:
        raise ProblemError(ProblemCode.NOT_FOUND, "No model that this node may run has this content.")
    return send_blob(here.blobs, found.key, found.facts, filename="content.zip")


@blueprint.get("/v1/nodes")
@allow(Role.ADMIN)
def listing() -> Response:
    """All nodes, those that are gone too, in the order of their names."""
    query = query_fields(PageQuery)
    with services().database.read() as connection:
        found = list_nodes(connection, after=query.cursor, limit=query.limit + 1)
        page = found[: query.limit]
        work = work_of(connection, [node.name for node in page])
    next_cursor = page[-1].name if len(found) > query.limit else None
    return jsonify({"items": [node_document(node, work) for node in page], "next_cursor": next_cursor})


@blueprint.get("/v1/nodes/<name>")
@allow(Role.ADMIN)
def show(name: str) -> Response:
    """One node."""
    return _shown(services(), name)


@blueprint.post("/v1/nodes/<name>/drain")
@allow(Role.ADMIN)
def drain(name: str) -> Response:
    """Have the node take no tasks from now on; what runs there goes on."""
    return _set_draining(name, draining=True)


@blueprint.post("/v1/nodes/<name>/resume")
@allow(Role.ADMIN)
def resume(name: str) -> Response:
    """Have the node take tasks again."""
    return _set_draining(name, draining=False)


@blueprint.delete("/v1/nodes/<name>")
@allow(Role.ADMIN)
def forget(name: str) -> Response:
    """Forget a node that is gone."""
    here = services()
    try:
        with here.database.write() as connection:
            if not forget_node(connection, name):
                raise _unknown(name)
            forget_slots(connection, name)
    except NodeInUseError as error:
        raise ProblemError(
            ProblemCode.NODE_IN_USE, "The node is still heard of; stop its consumer first, or drain it."
        ) from error
    here.fleet.forget_nodes()
    return Response(status=204)


def _set_draining(name: str, *, draining: bool) -> Response:
    here = services()
    with here.database.write() as connection:
        if not set_draining(connection, name, draining=draining):
            raise _unknown(name)
    here.fleet.forget_nodes()
    here.lookout.recall(node=name)
    return _shown(here, name)


def _shown(here: Services, name: str) -> Response:
    with here.database.read() as connection:
        node = find_node(connection, name)
        work = work_of(connection, [name])
    if node is None:
        raise _unknown(name)
    return jsonify(node_document(node, work))


def _unknown(name: str) -> ProblemError:
    return ProblemError(ProblemCode.NODE_NOT_FOUND, f"There is no node {name[:128]!r}.")


def _check(name: str, said: NodeReport) -> None:
    """Raise the problem that says what is wrong with a report."""
    if not _NAME.fullmatch(name):
        raise ProblemError(
            ProblemCode.INVALID_FIELD,
            "A node's name is 1 to 63 letters, digits, dots, dashes and underscores.",
        )
    if not 1 <= len(said.instance) <= 64:
        raise ProblemError(ProblemCode.INVALID_FIELD, "instance must be 1 to 64 characters.")
    for field, values, most in (
        ("slots", said.slots, _MOST_SLOTS),
        ("gpus", said.gpus, _MOST_GPUS),
        ("labels", said.labels, _MOST_LABELS),
        ("images", said.images, _MOST_IMAGES),
    ):
        if len(values) > most:
            raise ProblemError(ProblemCode.INVALID_FIELD, f"{field} may name {most} at most.")
    texts = [*said.labels, *said.labels.values(), *said.images]
    texts += [said.machine.architecture, said.machine.engine_version]
    texts += [text for gpu in said.gpus for text in (gpu.uuid, gpu.name)]
    texts += [text or "" for slot in said.slots for text in (slot.name, slot.gpu, slot.task_id)]
    if any(len(text) > _LONGEST for text in texts):
        raise ProblemError(
            ProblemCode.INVALID_FIELD, f"No text in a report is longer than {_LONGEST} characters."
        )
    numbers = [said.machine.cpus, said.machine.memory_bytes, said.disk.total_bytes, said.disk.free_bytes]
    if any(number < 0 for number in (*numbers, *(gpu.memory_bytes for gpu in said.gpus))):
        raise ProblemError(ProblemCode.INVALID_FIELD, "A report has no numbers below 0.")
