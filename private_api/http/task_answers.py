"""What the doors to tasks have in common: whose task it is, waiting for its end, and how it is answered."""

from __future__ import annotations

from flask import Response, jsonify
from sqlalchemy import Connection

from contracts.messages import BlobFacts
from contracts.names import is_task_id
from contracts.problems import ProblemCode
from contracts.states import TaskState
from private_api.bell import task_topic
from private_api.decisions.placement import waiting_for as what_is_missing
from private_api.decisions.retention import DataKind
from private_api.http.authentication import Caller
from private_api.http.documents import task_document
from private_api.http.downloads import send_blob
from private_api.http.services import Services
from private_api.http.waiting import hold_for_people
from private_api.store.database import Database
from private_api.store.models import find_asked
from private_api.store.tasks import Task, find_task, queue_position
from private_api.store.workers import has_unreported_slot
from serving.problems import ProblemError

POLL_AGAIN_SECONDS = 1


def own_task(database: Database, owner: Caller, task_id: str) -> Task:
    """The caller's task, any task for an admin; somebody else's does not exist."""
    with database.read() as connection:
        return find_own_task(connection, owner, task_id)


def find_own_task(connection: Connection, owner: Caller, task_id: str) -> Task:
    """As ``own_task``, inside somebody's transaction."""
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


def show_task(here: Services, task: Task, status: int = 200) -> Response:
    """Answer with a task, and with what it waits for while it is queued."""
    position, waiting_for = None, None
    if task.state is TaskState.QUEUED:
        with here.database.read() as connection:
            position = queue_position(connection, task)
            # What a node that never reported has, nobody knows: one of its slots may take the task.
            if not has_unreported_slot(connection, task.kind):
                asked = find_asked(connection, task.model_id, task.kind)
                waiting_for = what_is_missing(asked, here.fleet.offers())
    response = jsonify(task_document(task, queue_position=position, waiting_for=waiting_for))
    response.status_code = status
    if not task.ended:
        response.headers["Retry-After"] = str(POLL_AGAIN_SECONDS)
    return response


def send_output(here: Services, task: Task, *, direct: bool = False) -> Response:
    """Answer with the task's output, or with the problem that says why there is none."""
    if not task.ended:
        raise ProblemError(
            ProblemCode.TASK_NOT_FINISHED,
            f"The task is {task.state.value}; ask again later, or with 'Prefer: wait=60'.",
            task_id=task.id,
            retry_after=POLL_AGAIN_SECONDS,
        )
    if task.output_key is None or task.output_size is None or task.output_sha256 is None:
        detail = f"The task ended as {task.state.value} ({task.reason_code}): {task.reason}"
        raise ProblemError(ProblemCode.TASK_FAILED, detail, task_id=task.id)
    refuse_expired(task, DataKind.OUTPUT)
    facts = BlobFacts(size_bytes=task.output_size, sha256=task.output_sha256)
    filename = f"{task.id}-output.zip"
    return send_blob(here.blobs, task.output_key, facts, filename=filename, direct=direct)


def refuse_expired(task: Task, kind: DataKind) -> None:
    """Raise the problem that says so when this kind of the task's data is past its retention and gone."""
    purged_at, code, detail = {
        DataKind.INPUT: (
            task.input_purged_at,
            ProblemCode.INPUT_EXPIRED,
            "The task's input was kept for its time and is gone; send it again as a new task.",
        ),
        DataKind.OUTPUT: (
            task.output_purged_at,
            ProblemCode.OUTPUT_EXPIRED,
            "The task's output was kept for its time and is gone; send the task again.",
        ),
        DataKind.LOG: (
            task.log_purged_at,
            ProblemCode.LOG_EXPIRED,
            "The task's log was kept for its time and is gone.",
        ),
    }[kind]
    if purged_at is not None:
        raise ProblemError(code, detail, task_id=task.id)
