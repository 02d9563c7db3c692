"""The doors for workers that have a lease: renew it, bring log and output, say how the attempt ended."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from flask import Blueprint, Response, jsonify, request

from contracts.messages import Completion, Failure, Heartbeat, SlotKind
from contracts.names import LEASE_TOKEN_HEADER
from contracts.problems import ProblemCode
from contracts.timing import MAX_WAIT_SECONDS
from private_api.bell import task_topic
from private_api.blobs.store import BlobStoreFullError, discard
from private_api.crashpoints import COMPLETED, OUTPUT_STORED
from private_api.http.authentication import allow, caller
from private_api.http.downloads import send_blob
from private_api.http.fields import json_message
from private_api.http.services import Services, services
from private_api.http.waiting import hold
from private_api.metrics import count_end
from private_api.store.keys import Role
from private_api.store.leases import (
    AttemptEnd,
    LeasedTask,
    OutputMismatchError,
    StaleLeaseError,
    append_log,
    commit_output,
    fail_attempt,
    find_leased,
    note_upload,
    renew,
)
from private_api.store.proofs import Proof
from serving.bodies import fitting_length, read_body, read_small_body
from serving.logs import working_on
from serving.problems import ProblemError

blueprint = Blueprint("leases", __name__)
_log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")

_MAX_LOG_PIECE_BYTES = 4 * 1024 * 1024


def _stale_is_a_problem(view: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(view)
    def guarded(*arguments: _P.args, **named: _P.kwargs) -> _R:
        try:
            return view(*arguments, **named)
        except StaleLeaseError as error:
            raise ProblemError(
                ProblemCode.STALE_LEASE,
                "The task has ended, is gone, or another worker has it; stop working on it.",
            ) from error

    return guarded


@blueprint.post("/v1/leases/<lease_id>/heartbeat")
@allow(Role.WORKER)
@_stale_is_a_problem
def heartbeat(lease_id: str) -> Response:
    """Renew the lease, then wait for a wish to cancel."""
    here = services()
    beat: Heartbeat = json_message(Heartbeat.from_json)
    if beat.image and (len(beat.image.image_id) > 128 or len(beat.image.digest or "") > 512):
        raise ProblemError(ProblemCode.INVALID_FIELD, "No image has so long an id or digest.")
    proof = _proof(lease_id)
    with here.database.write() as connection:
        task_id, answer = renew(connection, proof, beat)
    here.bell.ring(task_topic(task_id))

    def canceled() -> bool | None:
        with here.database.read() as connection:
            return True if find_leased(connection, proof).cancel_requested else None

    wait_seconds = min(max(beat.wait_seconds, 0.0), MAX_WAIT_SECONDS)
    if not answer.cancel_requested and wait_seconds:
        found = hold(here, [task_topic(task_id)], wait_seconds, canceled)
        answer = replace(answer, cancel_requested=bool(found))
    return jsonify(answer.to_json())


@blueprint.post("/v1/leases/<lease_id>/logs")
@allow(Role.WORKER)
@_stale_is_a_problem
def logs(lease_id: str) -> Response:
    """Append to the attempt's log."""
    here = services()
    offset = request.args.get("offset", "0")
    if not (offset.isascii() and offset.isdigit() and len(offset) <= 18):
        raise ProblemError(ProblemCode.INVALID_FIELD, "offset must be a number of bytes.")
    data = read_small_body(request.environ, maximum_bytes=_MAX_LOG_PIECE_BYTES)
    with here.database.write() as connection:
        task_id, stored = append_log(connection, _proof(lease_id), int(offset), data)
    here.bell.ring(task_topic(task_id))
    return jsonify({"log_bytes": stored})


@blueprint.get("/v1/leases/<lease_id>/input")
@allow(Role.WORKER)
@_stale_is_a_problem
def fetch_input(lease_id: str) -> Response:
    """The task's input."""
    here = services()
    task = _leased(here, lease_id)
    return send_blob(here.blobs, task.input_key, task.input, filename="input.zip")


@blueprint.get("/v1/leases/<lease_id>/content")
@allow(Role.WORKER)
@_stale_is_a_problem
def fetch_content(lease_id: str) -> Response:
    """The model's static content."""
    here = services()
    task = _leased(here, lease_id)
    if task.content is None or task.content_key is None:
        raise ProblemError(ProblemCode.NOT_FOUND, "This model has no static content.")
    return send_blob(here.blobs, task.content_key, task.content, filename="content.zip")


@blueprint.put("/v1/leases/<lease_id>/output")
@allow(Role.WORKER)
@_stale_is_a_problem
def store_output(lease_id: str) -> Response:
    """Take in the output; it counts only once it is committed."""
    here = services()
    proof = _proof(lease_id)
    task = _leased(here, lease_id)
    key = f"outputs/{task.task_id}-{proof.token}-{secrets.token_hex(8)}"
    try:
        declared_bytes = fitting_length(request.environ, task.max_output_zip_bytes)
        with here.blobs.begin(key, declared_bytes=declared_bytes) as writer:
            for chunk in read_body(request.environ, maximum_bytes=task.max_output_zip_bytes):
                writer.write(chunk)
            facts = writer.finish()
    except BlobStoreFullError as error:
        raise ProblemError(ProblemCode.STORAGE_FULL, str(error), retry_after=30) from error
    here.crashpoints.passing(OUTPUT_STORED)
    try:
        with here.database.write() as connection:
            earlier = note_upload(connection, proof, key, facts)
    except StaleLeaseError:
        discard(here.blobs, [key])
        raise
    if earlier is not None:
        discard(here.blobs, [earlier])
    return jsonify(facts.to_json())


@blueprint.post("/v1/leases/<lease_id>/complete")
@allow(Role.WORKER)
@_stale_is_a_problem
def complete(lease_id: str) -> Response:
    """Commit the uploaded output: the task has succeeded."""
    here = services()
    completion: Completion = json_message(Completion.from_json)
    try:
        with here.database.write() as connection:
            end = commit_output(connection, _proof(lease_id), completion, here.retention)
    except OutputMismatchError as error:
        raise ProblemError(
            ProblemCode.CHECKSUM_MISMATCH, "This is not the output that was uploaded; upload it again."
        ) from error
    here.crashpoints.passing(COMPLETED)
    return _ended(here, end)


@blueprint.post("/v1/leases/<lease_id>/fail")
@allow(Role.WORKER)
@_stale_is_a_problem
def fail(lease_id: str) -> Response:
    """End the attempt without an output."""
    here = services()
    failure: Failure = json_message(Failure.from_json)
    with here.database.write() as connection:
        end = fail_attempt(connection, _proof(lease_id), failure, here.retention)
    return _ended(here, end)


def announce_end(here: Services, end: AttemptEnd) -> None:
    """Wake whom the end of an attempt concerns, and delete what nobody needs any more."""
    if end.is_news:
        count_end(end.state, end.reason_code, end.durations)
        said = {
            "action": "attempt_ended",
            "task_id": end.task_id,
            "attempt": end.attempt,
            "outcome": end.state.value,
            "reason_code": end.reason_code.value if end.reason_code else None,
            "durations": end.durations,
        }
        with working_on(request_id=end.request_id):
            _log.info("attempt ended: %s", end.state.value, extra=said)
    here.bell.ring(task_topic(end.task_id))
    if end.requeued:
        here.lookout.ring()
        here.announcer.announce(SlotKind(end.kind), end.task_id, end.delay_seconds)
    discard(here.blobs, end.garbage)


def _ended(here: Services, end: AttemptEnd) -> Response:
    announce_end(here, end)
    return jsonify({})


def _leased(here: Services, lease_id: str) -> LeasedTask:
    with here.database.read() as connection:
        return find_leased(connection, _proof(lease_id))


def _proof(lease_id: str) -> Proof:
    text: Any = request.headers.get(LEASE_TOKEN_HEADER, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ProblemError(
            ProblemCode.INVALID_FIELD, f"Send the lease's token in the header {LEASE_TOKEN_HEADER}."
        )
    return Proof(lease_id=lease_id, token=int(text), key_id=caller().key.id)
