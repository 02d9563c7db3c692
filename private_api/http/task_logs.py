"""The door to a task's log: read from an offset on, or follow it by long polls."""

from __future__ import annotations

from flask import Blueprint, Response, request

from contracts.names import NEXT_OFFSET_HEADER
from contracts.problems import ProblemCode
from private_api.bell import task_topic
from private_api.decisions.retention import DataKind
from private_api.http.authentication import PEOPLE, allow, caller
from private_api.http.services import services
from private_api.http.task_answers import own_task, refuse_expired
from private_api.http.waiting import hold_for_people, seconds_of
from private_api.store.logs import read_log
from private_api.store.tasks import find_task
from serving.problems import ProblemError

blueprint = Blueprint("task_logs", __name__)

_COMPLETE_HEADER = "X-Log-Complete"
# One answer's worth; a client goes on from X-Next-Offset.
_ANSWER_BYTES = 4 * 1024 * 1024


@blueprint.get("/v1/tasks/<task_id>/logs")
@allow(*PEOPLE)
def read(task_id: str) -> Response:
    """The log from ``offset`` on; ``wait=N`` holds the answer until there is more, or the task has ended."""
    here = services()
    task = own_task(here.database, caller(), task_id)
    refuse_expired(task, DataKind.LOG)
    offset = _offset(request.args.get("offset", "0"))
    wait_seconds = seconds_of(request.args.get("wait", "0"), "wait")

    def look() -> tuple[bytes, bool] | None:
        with here.database.read() as connection:
            now = find_task(connection, task.id)
            if now is None:
                return b"", True
            refuse_expired(now, DataKind.LOG)
            # Asked in this order: what is appended after the look at the state is read all the same.
            data = read_log(connection, task.id, offset, _ANSWER_BYTES) if now.log_size > offset else b""
        reached_end = now.ended and offset + len(data) >= now.log_size
        return (data, reached_end) if data or reached_end else None

    data, complete = hold_for_people(here, [task_topic(task.id)], wait_seconds, look) or (b"", False)
    response = Response(data, mimetype="text/plain")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers[NEXT_OFFSET_HEADER] = str(offset + len(data))
    response.headers[_COMPLETE_HEADER] = "true" if complete else "false"
    return response


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ProblemError(ProblemCode.INVALID_FIELD, "offset must be a number of bytes, 0 or more.")
    return int(text)
