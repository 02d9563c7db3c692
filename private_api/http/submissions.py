"""The doors through which tasks come in: a zip for a model, or an ended task once more."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from contracts.messages import BlobFacts, SlotKind
from contracts.problems import ProblemCode
from private_api.bell import queue_topic
from private_api.crashpoints import TASK_COMMITTED
from private_api.http.authentication import PEOPLE, Caller, allow, caller
from private_api.http.documents import task_document
from private_api.http.fields import TaskFields, received_fields
from private_api.http.repetition import Answer, create_once
from private_api.http.services import Services, services
from private_api.http.task_answers import (
    POLL_AGAIN_SECONDS,
    own_task,
    refuse_expired,
    send_output,
    show_task,
    wait_until_ended,
)
from private_api.http.uploads import StoredZip, receive
from private_api.http.waiting import preferred_wait
from private_api.store.database import Database
from private_api.store.idempotency import fingerprint_of
from private_api.store.models import Model, find_model
from private_api.store.tasks import add_task, find_task, input_is_used
from serving.problems import ProblemError

blueprint = Blueprint("submissions", __name__)


@blueprint.route("/v1/tasks", methods=["POST", "PUT"])
@allow(*PEOPLE)
def submit() -> Response:
    """Accept a zip for a model."""
    here, owner = services(), caller()
    wait_seconds = preferred_wait()

    def early(fields: dict[str, str]) -> None:
        if "model_human_readable_id" in fields:
            _usable_model(here.database, fields["model_human_readable_id"])

    with receive(here, "inputs", here.settings.max_input_bytes, early) as received:
        fields = received_fields(TaskFields, received.fields)
        model = _usable_model(here.database, fields.model_human_readable_id)
        if received.zip is None:
            raise ProblemError(
                ProblemCode.MISSING_FILE,
                "Send the zip in the form field 'zip_file' (curl -F zip_file=@task.zip), or as the raw body.",
            )
        answer = _accept(here, owner, fields, model, received.zip)
    here.crashpoints.passing(TASK_COMMITTED)
    if answer.is_first:
        here.bell.ring_one(queue_topic((SlotKind.GPU if model.use_gpu else SlotKind.CPU).value))
    else:
        here.blobs.delete(received.zip.key)
    return _answer_submitted(here, answer, wait_seconds)


@blueprint.post("/v1/tasks/<task_id>/retry")
@allow(*PEOPLE)
def retry(task_id: str) -> Response:
    """Run an ended task's input again, under a new id and with the model's present version."""
    here, owner = services(), caller()
    task = own_task(here.database, owner, task_id)
    refuse_expired(task)
    if not task.ended:
        raise ProblemError(
            ProblemCode.TASK_NOT_FINISHED,
            "Only a task that has ended can be run again; cancel it first.",
            task_id=task.id,
            retry_after=POLL_AGAIN_SECONDS,
        )
    model = _usable_model(here.database, task.model)
    facts = BlobFacts(size_bytes=task.input_size, sha256=task.input_sha256)

    def create(connection: Connection) -> tuple[str, dict[str, Any]]:
        if not input_is_used(connection, task.input_key):
            raise ProblemError(ProblemCode.DATA_EXPIRED, "The task's input is gone.", task_id=task.id)
        new = add_task(
            connection,
            owner_id=owner.key.id,
            model=model,
            input_key=task.input_key,
            facts=facts,
            priority=task.priority,
        )
        return new.id, task_document(new)

    answer = create_once(here.database, owner, fingerprint_of("retry", task.id), create)
    here.bell.ring_one(queue_topic(task.kind.value))
    return _answer_submitted(here, answer, preferred_wait())


def _usable_model(database: Database, human_readable_id: str) -> Model:
    with database.read() as connection:
        model = find_model(connection, human_readable_id)
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


def _accept(here: Services, owner: Caller, fields: TaskFields, model: Model, stored: StoredZip) -> Answer:
    def create(connection: Connection) -> tuple[str, dict[str, Any]]:
        task = add_task(
            connection,
            owner_id=owner.key.id,
            model=model,
            input_key=stored.key,
            facts=stored.facts,
            priority=fields.priority if owner.is_admin else min(fields.priority, 0),
        )
        return task.id, task_document(task)

    fingerprint = fingerprint_of("task", fields.model_dump(), stored.facts.sha256)
    return create_once(here.database, owner, fingerprint, create)


def _answer_submitted(here: Services, answer: Answer, wait_seconds: float) -> Response:
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
