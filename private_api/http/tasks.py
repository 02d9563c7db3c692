"""The doors to tasks: send one, watch it, fetch what it made, stop it, remove it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request

from contracts.messages import BlobFacts, SlotKind
from contracts.names import is_task_id
from contracts.problems import ProblemCode
from contracts.states import TaskState
from private_api.bell import queue_topic, task_topic
from private_api.crashpoints import TASK_COMMITTED
from private_api.http.authentication import PEOPLE, Caller, allow, caller
from private_api.http.documents import task_document
from private_api.http.downloads import send_blob
from private_api.http.fields import TaskFields, TaskQuery, milliseconds, query_fields, read_fields
from private_api.http.repetition import Answer, create_once
from private_api.http.services import Services, services
from private_api.http.uploads import StoredZip, receive
from private_api.http.waiting import hold_for_people, preferred_wait
from private_api.store.database import Database
from private_api.store.idempotency import fingerprint_of
from private_api.store.models import Model, find_model
from private_api.store.tasks import (
    Task,
    TaskFilter,
    add_task,
    delete_task,
    find_task,
    has_worker,
    input_is_used,
    list_tasks,
    queue_position,
    request_cancel,
)
from serving.problems import ProblemError

blueprint = Blueprint("tasks", __name__)

_POLL_AGAIN_SECONDS = 1
# A slot that is alive asks for work, or renews its lease, far more often than this.
_WORKER_SILENT_MS = 90_000


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
        fields = read_fields(TaskFields, dict(received.fields))
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


@blueprint.get("/v1/tasks")
@allow(*PEOPLE)
def listing() -> Response:
    """Own tasks, newest first; an admin's list has everybody's."""
    query = query_fields(TaskQuery)
    chosen = TaskFilter(
        owner_id=None if caller().is_admin else caller().key.id,
        state=query.state,
        model=query.model,
        created_after=milliseconds(query.created_after),
        created_before=milliseconds(query.created_before),
    )
    before = int(query.cursor) if query.cursor else None
    with services().database.read() as connection:
        found = list_tasks(connection, chosen, before_seq=before, limit=query.limit + 1)
    page = found[: query.limit]
    next_cursor = str(page[-1].seq) if len(found) > query.limit else None
    return jsonify({"items": [task_document(task) for task in page], "next_cursor": next_cursor})


@blueprint.get("/v1/tasks/<task_id>")
@allow(*PEOPLE)
def show(task_id: str) -> Response:
    """One task; ``Prefer: wait=N`` holds the answer until it has ended."""
    here, owner = services(), caller()
    task = wait_until_ended(here, own_task(here.database, owner, task_id), preferred_wait())
    return _show(here, task, 200)


@blueprint.get("/v1/tasks/<task_id>/input")
@allow(*PEOPLE)
def fetch_input(task_id: str) -> Response:
    """The zip that was sent."""
    here = services()
    task = own_task(here.database, caller(), task_id)
    _refuse_expired(task)
    facts = BlobFacts(size_bytes=task.input_size, sha256=task.input_sha256)
    return send_blob(here.blobs, task.input_key, facts, filename=f"{task.id}-input.zip")


@blueprint.get("/v1/tasks/<task_id>/output")
@allow(*PEOPLE)
def fetch_output(task_id: str) -> Response:
    """The zip that the model made; ``Prefer: wait=N`` holds the answer until the task has ended."""
    here, owner = services(), caller()
    task = wait_until_ended(here, own_task(here.database, owner, task_id), preferred_wait())
    return _send_output(here, task)


@blueprint.post("/v1/tasks/<task_id>/cancel")
@allow(*PEOPLE)
def cancel(task_id: str) -> Response:
    """Ask a task to stop."""
    here, owner = services(), caller()
    task = own_task(here.database, owner, task_id)
    if task.ended and task.state is not TaskState.CANCELED:
        raise ProblemError(
            ProblemCode.TASK_FINISHED, f"The task has already ended as {task.state.value}.", task_id=task.id
        )
    with here.database.write() as connection:
        request_cancel(connection, task)
    here.bell.ring(task_topic(task.id))
    return _show(here, own_task(here.database, owner, task_id), 202)


@blueprint.post("/v1/tasks/<task_id>/retry")
@allow(*PEOPLE)
def retry(task_id: str) -> Response:
    """Run an ended task's input again, under a new id and with the model's present version."""
    here, owner = services(), caller()
    task = own_task(here.database, owner, task_id)
    _refuse_expired(task)
    if not task.ended:
        raise ProblemError(
            ProblemCode.TASK_NOT_FINISHED,
            "Only a task that has ended can be run again; cancel it first.",
            task_id=task.id,
            retry_after=_POLL_AGAIN_SECONDS,
        )
    model = _usable_model(here.database, task.model)
    facts = BlobFacts(size_bytes=task.input_size, sha256=task.input_sha256)

    def create(connection: Any) -> tuple[str, dict[str, Any]]:
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


@blueprint.delete("/v1/tasks/<task_id>")
@allow(*PEOPLE)
def remove(task_id: str) -> Response:
    """Remove a task and all its data; one that has not ended is stopped."""
    here = services()
    task = own_task(here.database, caller(), task_id)
    with here.database.write() as connection:
        garbage = delete_task(connection, task)
    here.bell.ring(task_topic(task.id))
    for key in garbage:
        here.blobs.delete(key)
    return Response(status=204)


def own_task(database: Database, owner: Caller, task_id: str) -> Task:
    """The caller's task, any task for an admin; somebody else's does not exist."""
    with database.read() as connection:
        task = find_task(connection, task_id) if is_task_id(task_id) else None
    if task is None or not (owner.is_admin or task.owner_id == owner.key.id):
        raise ProblemError(ProblemCode.TASK_NOT_FOUND, "There is no task with this id among your tasks.")
    return task


def wait_until_ended(here: Services, task: Task, seconds: float) -> Task:
    """The task as it is when it has ended, or after ``seconds``."""
    if task.ended or seconds <= 0:
        return task

    def look() -> Task | None:
        with here.database.read() as connection:
            now = find_task(connection, task.id)
        if now is None:
            raise ProblemError(ProblemCode.TASK_NOT_FOUND, "The task has been removed.", task_id=task.id)
        return now if now.ended else None

    ended = hold_for_people(here, [task_topic(task.id)], seconds, look)
    if ended is not None:
        return ended
    with here.database.read() as connection:
        return find_task(connection, task.id) or task


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
    def create(connection: Any) -> tuple[str, dict[str, Any]]:
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
        return _accepted(_show(here, task, 202), task.id)
    if request.accept_mimetypes.best == "application/zip":
        response = _send_output(here, task)
        response.headers["Content-Location"] = f"/v1/tasks/{task.id}/output"
        return response
    response = _show(here, task, 200)
    response.headers["Location"] = f"/v1/tasks/{task.id}"
    return response


def _accepted(response: Response, task_id: str) -> Response:
    response.status_code = 202
    response.headers["Location"] = f"/v1/tasks/{task_id}"
    response.headers["Retry-After"] = str(_POLL_AGAIN_SECONDS)
    return response


def _show(here: Services, task: Task, status: int) -> Response:
    position, waiting_for = None, None
    if task.state is TaskState.QUEUED:
        with here.database.read() as connection:
            position = queue_position(connection, task)
            if not has_worker(connection, task.kind, _WORKER_SILENT_MS):
                waiting_for = (
                    f"a worker with a {task.kind.value.upper()} slot; none is connected at the moment"
                )
    response = jsonify(task_document(task, queue_position=position, waiting_for=waiting_for))
    response.status_code = status
    if not task.ended:
        response.headers["Retry-After"] = str(_POLL_AGAIN_SECONDS)
    return response


def _send_output(here: Services, task: Task) -> Response:
    if not task.ended:
        raise ProblemError(
            ProblemCode.TASK_NOT_FINISHED,
            f"The task is {task.state.value}; ask again later, or with 'Prefer: wait=60'.",
            task_id=task.id,
            retry_after=_POLL_AGAIN_SECONDS,
        )
    if task.output_key is None or task.output_size is None or task.output_sha256 is None:
        detail = f"The task ended as {task.state.value} ({task.reason_code}): {task.reason}"
        raise ProblemError(ProblemCode.TASK_FAILED, detail, task_id=task.id)
    _refuse_expired(task)
    facts = BlobFacts(size_bytes=task.output_size, sha256=task.output_sha256)
    return send_blob(here.blobs, task.output_key, facts, filename=f"{task.id}-output.zip")


def _refuse_expired(task: Task) -> None:
    if task.purged_at is not None:
        raise ProblemError(
            ProblemCode.DATA_EXPIRED,
            "The task's data was kept for its time and is gone; send the task again.",
            task_id=task.id,
        )
