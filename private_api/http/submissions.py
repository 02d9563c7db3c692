"""The doors through which tasks come in: a zip for a model, or an ended task once more."""

from __future__ import annotations

import logging
from typing import Any, Literal

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from contracts.messages import BlobFacts, SlotKind
from contracts.problems import ProblemCode
from private_api.blobs.store import discard
from private_api.crashpoints import TASK_COMMITTED
from private_api.decisions.retention import DataKind
from private_api.http.authentication import PEOPLE, Caller, allow, caller
from private_api.http.documents import task_document
from private_api.http.fields import received_fields
from private_api.http.repetition import Answer, create_once, idempotency_key
from private_api.http.services import Services, services
from private_api.http.shapes import TaskFields
from private_api.http.task_answers import (
    POLL_AGAIN_SECONDS,
    find_own_task,
    refuse_expired,
    send_output,
    show_task,
    wait_until_ended,
)
from private_api.http.uploads import StoredZip, receive
from private_api.http.waiting import preferred_wait
from private_api.metrics import TASKS_ACCEPTED
from private_api.store.idempotency import fingerprint_of
from private_api.store.models import Model, find_model
from private_api.store.tasks import add_task, find_task, lock_input
from serving.problems import ProblemError
from serving.request_ids import current_request_id

blueprint = Blueprint("submissions", __name__)
_log = logging.getLogger(__name__)


@blueprint.route("/v1/tasks", methods=["POST", "PUT"])
@allow(*PEOPLE)
def submit() -> Response:
    """Accept a zip for a model."""
    here, owner = services(), caller()
    wait_seconds = preferred_wait()
    with receive(here, "inputs", here.settings.max_input_bytes, _refuse_hopeless) as received:
        fields = received_fields(TaskFields, received.fields)
        if received.zip is None:
            raise ProblemError(
                ProblemCode.MISSING_FILE,
                "Send the zip in the form field 'zip_file' (curl -F zip_file=@task.zip), or as the raw body.",
            )
        answer = _accept(here, owner, fields, received.zip)
    here.crashpoints.passing(TASK_COMMITTED)
    if not answer.is_first:
        discard(here.blobs, [received.zip.key])
    return _answer_submitted(here, answer, wait_seconds)


@blueprint.post("/v1/tasks/<task_id>/retry")
@allow(*PEOPLE)
def retry(task_id: str) -> Response:
    """Run an ended task's input again, under a new id and with the model's present version."""
    here, owner = services(), caller()
    wait_seconds = preferred_wait()

    def create(connection: Connection) -> tuple[str, dict[str, Any]]:
        task = find_own_task(connection, owner, task_id)
        if not task.ended:
            raise ProblemError(
                ProblemCode.TASK_NOT_FINISHED,
                "Only a task that has ended can be run again; cancel it first.",
                task_id=task.id,
                retry_after=POLL_AGAIN_SECONDS,
            )
        refuse_expired(task, DataKind.INPUT)
        if not lock_input(connection, task):
            raise ProblemError(ProblemCode.INPUT_EXPIRED, "The task's input is gone.", task_id=task.id)
        model = _usable_model(connection, task.model, lock="shared")
        facts = BlobFacts(size_bytes=task.input_size, sha256=task.input_sha256)
        return _add(connection, owner, model, StoredZip(key=task.input_key, facts=facts), task.priority)

    answer = create_once(here.database, owner, fingerprint_of("retry", task_id), create)
    return _answer_submitted(here, answer, wait_seconds)


def _refuse_hopeless(fields: dict[str, str]) -> None:
    # The repetition of a request is answered as the first was, even if the model is disabled by now.
    if "model_human_readable_id" in fields and idempotency_key() is None:
        with services().database.read() as connection:
            _usable_model(connection, fields["model_human_readable_id"])


def _usable_model(
    connection: Connection, human_readable_id: str, *, lock: Literal["shared"] | None = None
) -> Model:
    model = find_model(connection, human_readable_id, lock=lock)
    if model is None:
        raise ProblemError(
            ProblemCode.MODEL_NOT_FOUND,
            f"There is no model {human_readable_id[:128]!r}; GET /v1/models lists those that exist.",
        )
    if not model.enabled:
        raise ProblemError(
            ProblemCode.MODEL_DISABLED, f"The model {human_readable_id!r} is disabled at the moment."
        )
    return model


def _accept(here: Services, owner: Caller, fields: TaskFields, stored: StoredZip) -> Answer:
    # Everybody may stand back; only an admin may push ahead.
    priority = fields.priority if owner.is_admin else min(fields.priority, 0)

    def create(connection: Connection) -> tuple[str, dict[str, Any]]:
        # Nobody deletes or changes the model while a task is bound to its present version.
        model = _usable_model(connection, fields.model_human_readable_id, lock="shared")
        return _add(connection, owner, model, stored, priority)

    fingerprint = fingerprint_of("task", fields.model_dump(), stored.facts.sha256)
    return create_once(here.database, owner, fingerprint, create)


def _add(
    connection: Connection, owner: Caller, model: Model, stored: StoredZip, priority: int
) -> tuple[str, dict[str, Any]]:
    task = add_task(
        connection,
        owner_id=owner.key.id,
        model=model,
        input_key=stored.key,
        facts=stored.facts,
        priority=priority,
        request_id=current_request_id(),
    )
    return task.id, task_document(task)


def _answer_submitted(here: Services, answer: Answer, wait_seconds: float) -> Response:
    if answer.is_first:
        TASKS_ACCEPTED.labels(answer.document["kind"]).inc()
        said = {
            "action": "task_accepted",
            "task_id": answer.created_id,
            "model": answer.document["model"],
            "key_id": caller().key.id,
        }
        _log.info("task accepted", extra=said)
        here.lookout.ring()
        here.announcer.announce(SlotKind(answer.document["kind"]), answer.created_id)
    if wait_seconds <= 0:
        return _accepted(jsonify(answer.document), answer.created_id)
    with here.database.read() as connection:
        task = find_task(connection, answer.created_id)
    if task is None:
        raise ProblemError(ProblemCode.TASK_NOT_FOUND, "The task has been removed.")
    task = wait_until_ended(here, task, wait_seconds)
    if not task.ended:
        return _accepted(show_task(here, task, 202), task.id)
    if request.accept_mimetypes.best == "application/zip":
        response = send_output(here, task)
        response.headers["Content-Location"] = f"/v1/tasks/{task.id}/output"
        return response
    response = show_task(here, task, 200)
    response.headers["Location"] = f"/v1/tasks/{task.id}"
    return response


def _accepted(response: Response, task_id: str) -> Response:
    response.status_code = 202
    response.headers["Location"] = f"/v1/tasks/{task_id}"
    response.headers["Retry-After"] = str(POLL_AGAIN_SECONDS)
    return response
