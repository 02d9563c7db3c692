"""The door at which a worker's free slot asks for a task, waiting for one as long as it likes."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from contracts.messages import ClaimRequest, Lease, SlotKind, Withdrawal
from contracts.problems import ProblemCode
from contracts.timing import MAX_WAIT_SECONDS
from private_api.bell import task_topic
from private_api.crashpoints import CLAIMED
from private_api.http.authentication import Caller, allow, caller
from private_api.http.fields import json_message
from private_api.http.services import Services, services
from private_api.http.waiting import hold_for_task
from private_api.lookout import Waiter
from private_api.metrics import PHASE_SECONDS, QUEUED, TASKS_CLAIMED
from private_api.store.claims import (
    ForeignNodeError,
    NodeDrainingError,
    TooManyLeasesError,
    claim_task,
    has_work,
    left_over,
    slot_of,
)
from private_api.store.keys import Role, opens_doors
from private_api.store.next_task import Slot
from private_api.store.workers import note_worker, worker_is_noted
from serving.logs import working_on
from serving.problems import ProblemError

blueprint = Blueprint("claims", __name__)
_log = logging.getLogger(__name__)

# A claim that has to make room for another takes milliseconds to end.
_ROOM_SECONDS = 2.0


@blueprint.post("/v1/leases")
@allow(Role.WORKER)
def claim() -> Response:
    """Lease the next task that fits, waiting for one as long as the worker asks."""
    here, owner = services(), caller()
    wanted: ClaimRequest = json_message(ClaimRequest.from_json)
    if not 1 <= len(wanted.node) <= 255 or not 1 <= len(wanted.slot) <= 64:
        raise ProblemError(
            ProblemCode.INVALID_FIELD, "node and slot must be 1 to 255 and 1 to 64 characters."
        )
    if not 1 <= len(wanted.kinds) <= 2 or not 0 <= wanted.wait_seconds <= MAX_WAIT_SECONDS:
        raise ProblemError(
            ProblemCode.INVALID_FIELD, f"Ask for 1 or 2 kinds, and wait up to {MAX_WAIT_SECONDS} s."
        )
    try:
        lease = _wait_for_task(here, owner, wanted)
    except NodeDrainingError as error:
        raise ProblemError(
            ProblemCode.NODE_DRAINING,
            f"The node {wanted.node!r} takes no tasks until an operator resumes it.",
        ) from error
    except ForeignNodeError as error:
        raise ProblemError(
            ProblemCode.NODE_NAME_TAKEN,
            f"The node {wanted.node!r} is known under another key; set NODE_NAME to another name.",
        ) from error
    except TooManyLeasesError as error:
        raise ProblemError(
            ProblemCode.RATE_LIMITED,
            f"The node {wanted.node!r} holds more leases than it has slots for; end some first.",
            retry_after=5,
        ) from error
    if lease is None:
        return Response(status=204)
    here.crashpoints.passing(CLAIMED)
    here.bell.ring(task_topic(lease.task_id))
    return jsonify(lease.to_json())


@blueprint.post("/v1/leases/withdraw")
@allow(Role.WORKER)
def withdraw() -> Response:
    """Have the claim that is held for a slot answered at once, with a task or without one."""
    given: Withdrawal = json_message(Withdrawal.from_json)
    found = services().lookout.withdraw(caller().key.id, given.node, given.slot)
    return jsonify({"withdrawn": found})


def _wait_for_task(here: Services, owner: Caller, wanted: ClaimRequest) -> Lease | None:
    if not _may_wait(here, owner):
        raise ProblemError(ProblemCode.UNAVAILABLE, "Too many workers wait already; come back in a moment.")
    sock = request.environ.get("gunicorn.socket")
    waiter = Waiter(wanted.kinds, owner.key.id, wanted.node, wanted.slot, sock)
    try:
        lease = hold_for_task(
            here,
            waiter,
            wanted.wait_seconds,
            look=lambda: _look_and_claim(here, owner, wanted, waiter),
            take=lambda: _claim_now(here, owner, wanted, waiter),
        )
    finally:
        here.claim_permits.release()
    takes_anything = waiter.slot is None or waiter.slot.takes_anything
    if lease is None and wanted.task_id is not None and not takes_anything:
        _tell_others(here, wanted, wanted.task_id)
    return lease


def _may_wait(here: Services, owner: Caller) -> bool:
    """Take one of the places for claims. Where all are taken, the key with the most gives one away."""
    if here.claim_permits.acquire(blocking=False):
        return True
    return here.lookout.make_room(owner.key.id) and here.claim_permits.acquire(timeout=_ROOM_SECONDS)


def _look_and_claim(here: Services, owner: Caller, wanted: ClaimRequest, waiter: Waiter) -> Lease | None:
    if wanted.task_id is not None:
        # There is work, as a rule; and a slot that comes with a hint has asked without one before.
        return _claim_now(here, owner, wanted, waiter)
    with here.database.read() as connection:
        waiter.slot = _slot(connection, owner, wanted)
        is_noted = worker_is_noted(connection, wanted)
        finds_work = has_work(connection, wanted, waiter.slot)
    if not is_noted:
        with here.database.write() as connection:
            note_worker(connection, wanted)
    return _claim_now(here, owner, wanted, waiter) if finds_work else None


def _claim_now(here: Services, owner: Caller, wanted: ClaimRequest, waiter: Waiter) -> Lease | None:
    with here.database.write() as connection:
        # A claim may have been held for a minute, and its key been revoked since.
        if not opens_doors(connection, owner.key.id):
            raise ProblemError(ProblemCode.UNAUTHENTICATED, "This key is not valid any more.")
        waiter.slot = _slot(connection, owner, wanted)
        claim = claim_task(connection, wanted, waiter.slot)
    if claim is None:
        return None
    lease = claim.lease
    kind = SlotKind.GPU if lease.use_gpu else SlotKind.CPU
    TASKS_CLAIMED.labels(kind.value).inc()
    PHASE_SECONDS.labels(QUEUED).observe(claim.queued_seconds)
    said = {
        "action": "task_claimed",
        "task_id": lease.task_id,
        "attempt": lease.attempt,
        "model": lease.model,
        "node": wanted.node,
        "slot": wanted.slot,
    }
    with working_on(request_id=lease.request_id):
        _log.info("task claimed", extra=said)
    return lease


def _slot(connection: Connection, owner: Caller, wanted: ClaimRequest) -> Slot:
    return slot_of(connection, wanted, key_id=owner.key.id, bound_to=owner.key.models)


def _tell_others(here: Services, wanted: ClaimRequest, task_id: str) -> None:
    """Have the task of a hint announced once more where it waits for another slot than the one that heard."""
    with here.database.read() as connection:
        kind = left_over(connection, wanted)
    if kind is not None:
        here.announcer.hold_back(kind, task_id)
