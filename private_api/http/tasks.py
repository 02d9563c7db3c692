"""The doors to tasks that exist: watch one, fetch what it made, stop it, remove it."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from contracts.messages import BlobFacts
from contracts.problems import ProblemCode
from contracts.states import TaskState
from private_api.bell import task_topic
from private_api.blobs.store import discard
from private_api.decisions.retention import DataKind
from private_api.http.authentication import PEOPLE, allow, caller
from private_api.http.documents import task_document
from private_api.http.downloads import send_blob, wants_redirect
from private_api.http.fields import milliseconds, query_fields
from private_api.http.services import services
from private_api.http.shapes import TaskQuery
from private_api.http.task_answers import own_task, refuse_expired, send_output, show_task, wait_until_ended
from private_api.http.waiting import preferred_wait
from private_api.metrics import count_finished
from private_api.store.tasks import TaskFilter, delete_task, list_tasks, request_cancel
from serving.problems import ProblemError

blueprint = Blueprint("tasks", __name__)


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
    return show_task(here, task, 200)


@blueprint.get("/v1/tasks/<task_id>/input")
@allow(*PEOPLE)
def fetch_input(task_id: str) -> Response:
    """The zip that was sent."""
    here = services()
    task = own_task(here.database, caller(), task_id)
    refuse_expired(task, DataKind.INPUT)
    facts = BlobFacts(size_bytes=task.input_size, sha256=task.input_sha256)
    filename = f"{task.id}-input.zip"
    return send_blob(here.blobs, task.input_key, facts, filename=filename, direct=wants_redirect())


@blueprint.get("/v1/tasks/<task_id>/output")
@allow(*PEOPLE)
def fetch_output(task_id: str) -> Response:
    """The zip that the model made; ``Prefer: wait=N`` holds the answer until the task has ended."""
    here, owner, direct = services(), caller(), wants_redirect()
    task = wait_until_ended(here, own_task(here.database, owner, task_id), preferred_wait())
    return send_output(here, task, direct=direct)


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
        ended = request_cancel(connection, task, here.retention)
    if ended:
        count_finished(TaskState.CANCELED, None)
    here.bell.ring(task_topic(task.id))
    return show_task(here, own_task(here.database, owner, task_id), 202)


@blueprint.delete("/v1/tasks/<task_id>")
@allow(*PEOPLE)
def remove(task_id: str) -> Response:
    """Remove a task and all its data; one that has not ended is stopped."""
    here = services()
    task = own_task(here.database, caller(), task_id)
    with here.database.write() as connection:
        garbage = delete_task(connection, task)
    here.bell.ring(task_topic(task.id))
    discard(here.blobs, garbage)
    return Response(status=204)
