"""The calls about tasks: ``client.tasks``. Each method is one sentence of the HTTP interface.

Waiting is patient: an outage of up to ten minutes is sat out, because the task runs on without us.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import requests

from inference_server_client.downloading import OnProgress, download
from inference_server_client.errors import (
    AnswerError,
    ApiError,
    InputError,
    IntegrityError,
    NotFoundError,
    TaskCanceledError,
    TaskEndedError,
    TaskFailedError,
    WaitTimeoutError,
)
from inference_server_client.problems import read_body
from inference_server_client.results import LogChunk, Page, Task, read_page
from inference_server_client.transport import Call, Transport, segment
from inference_server_client.upload_body import UploadBody

# Below the minute that the server holds an answer at most.
_HOLD_SECONDS = 20.0
# A server that does not hold answers is asked this often.
_PACE_SECONDS = 1.0
_LARGEST_LOG_CHUNK_BYTES = 4 * 1024 * 1024


class Tasks:
    """Submit, watch, fetch, cancel, retry and delete tasks."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def submit(
        self,
        model: str,
        source: str | Path | BinaryIO,
        *,
        priority: int | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Task:
        """Send a zip (a path, or a binary stream) to ``model``; returns the accepted task.

        Safe to break off and repeat: an Idempotency-Key makes repetitions one task. ``on_progress`` is told
        the bytes sent. A stream that cannot seek is sent once only. Raises ``IntegrityError`` where the
        server stored other bytes than were sent.
        """
        if isinstance(source, str | Path):
            try:
                with Path(source).open("rb") as stream:
                    return self._submit(model, stream, priority, idempotency_key, on_progress)
            except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
                raise InputError(f"{source} cannot be read: {error.strerror}.") from error
        return self._submit(model, source, priority, idempotency_key, on_progress)

    def _submit(
        self,
        model: str,
        stream: BinaryIO,
        priority: int | None,
        idempotency_key: str | None,
        on_progress: OnProgress | None,
    ) -> Task:
        body = UploadBody(stream, on_progress=on_progress)
        query: dict[str, str | int | float] = {"model_human_readable_id": model}
        if priority is not None:
            query["priority"] = priority
        call = Call(
            method="POST",
            path="/v1/tasks",
            query=query,
            body=body,
            creates=True,
            idempotency_key=idempotency_key,
        )
        task = Task.from_json(self._transport.json(call))
        if body.complete and task.input is not None and task.input.sha256.lower() != body.sha256:
            raise IntegrityError(f"The server stored other bytes than were sent; delete task {task.id}.")
        return task

    def get(self, task_id: str, *, wait_seconds: float = 0.0, patient: bool = False) -> Task:
        """The task; with ``wait_seconds`` the answer is held until it has ended, or so long."""
        headers = {"Prefer": f"wait={math.ceil(wait_seconds)}"} if wait_seconds > 0 else {}
        call = Call(
            method="GET", path=_route(task_id), headers=headers, wait_seconds=wait_seconds, patient=patient
        )
        return Task.from_json(self._transport.json(call))

    def wait(
        self,
        task_id: str,
        *,
        timeout_seconds: float | None = None,
        on_change: Callable[[Task], None] | None = None,
        hold_seconds: float = _HOLD_SECONDS,
    ) -> Task:
        """The task once it has ended, however; raises ``WaitTimeoutError`` after ``timeout_seconds``.

        ``on_change`` is told the task at first and whenever it differs, looked at every ``hold_seconds``.
        """
        deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        last: Task | None = None
        while True:
            asked_at = time.monotonic()
            task = self.get(
                task_id, wait_seconds=max(0.0, min(hold_seconds, deadline - asked_at)), patient=True
            )
            if on_change is not None and task != last:
                on_change(task)
            last = task
            if task.terminal:
                return task
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"Task {task.id} is still {task.state}; it goes on without us.")
            time.sleep(max(0.0, min(_PACE_SECONDS - (time.monotonic() - asked_at), left)))

    def page(
        self,
        *,
        limit: int = 100,
        cursor: str | None = None,
        state: str | None = None,
        model: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Page[Task]:
        """Up to ``limit`` (1..1000) tasks, newest first as the server orders them, from ``cursor`` on."""
        wanted = {
            "limit": limit,
            "cursor": cursor,
            "state": state,
            "model": model,
            "created_after": created_after.isoformat() if created_after else None,
            "created_before": created_before.isoformat() if created_before else None,
        }
        query = {name: value for name, value in wanted.items() if value is not None}
        return read_page(
            self._transport.json(Call(method="GET", path="/v1/tasks", query=query)), Task.from_json
        )

    def cancel(self, task_id: str) -> Task:
        """Ask for the task to stop; it is ``canceled`` within seconds."""
        return Task.from_json(self._transport.json(Call(method="POST", path=_route(task_id, "cancel"))))

    def retry(self, task_id: str, *, idempotency_key: str | None = None) -> Task:
        """Run the same input again under a new id; returns the new task."""
        call = Call(
            method="POST", path=_route(task_id, "retry"), creates=True, idempotency_key=idempotency_key
        )
        return Task.from_json(self._transport.json(call))

    def delete(self, task_id: str) -> None:
        """Remove the task and its data; one that has not ended is canceled first."""
        self._transport.remove(_route(task_id))

    def log_chunk(
        self, task_id: str, *, offset: int = 0, wait_seconds: float = 0.0, patient: bool = False
    ) -> LogChunk:
        """The log from ``offset`` bytes on; held up to ``wait_seconds`` while there is nothing new."""

        def read(response: requests.Response) -> LogChunk:
            next_offset = response.headers.get("X-Next-Offset", "")
            if not (next_offset.isascii() and next_offset.isdigit()):
                raise AnswerError("The answer is not the server's log: something in between cut it short.")
            data = read_body(response, _LARGEST_LOG_CHUNK_BYTES)
            if len(data) == _LARGEST_LOG_CHUNK_BYTES:
                return LogChunk(data=data, next_offset=offset + len(data), complete=False)
            complete = response.headers.get("X-Log-Complete", "").lower() == "true"
            return LogChunk(data=data, next_offset=int(next_offset), complete=complete)

        call = Call(
            method="GET",
            path=_route(task_id, "logs"),
            query={"offset": offset, "wait": math.ceil(wait_seconds)}
            if wait_seconds > 0
            else {"offset": offset},
            headers={"Accept": "text/plain, application/problem+json"},
            wait_seconds=wait_seconds,
            patient=patient,
        )
        return self._transport.perform(call, read)

    def logs(self, task_id: str, *, offset: int = 0, follow: bool = False) -> Iterator[LogChunk]:
        """The log from ``offset`` on, chunk by chunk; with ``follow`` until the task has ended."""
        while True:
            asked_at = time.monotonic()
            chunk = self.log_chunk(
                task_id, offset=offset, wait_seconds=_HOLD_SECONDS if follow else 0.0, patient=follow
            )
            if chunk.data:
                yield chunk
            # The server's word counts even when it goes back: a new attempt may begin a new log.
            offset = chunk.next_offset
            if chunk.complete or not (follow or chunk.data):
                return
            if not chunk.data:
                time.sleep(max(0.0, _PACE_SECONDS - (time.monotonic() - asked_at)))

    def download_output(self, task: Task, target: Path, *, on_progress: OnProgress | None = None) -> Path:
        """Fetch the output zip of an ended task into the file ``target``, checked against its SHA-256.

        Goes on where a broken connection, or an earlier call, left off. Raises ``TaskEndedError`` where the
        task has no output, ``ApiError`` (``task_not_finished``) where it has not ended.
        """
        raise_unless_succeeded(task)
        if task.output is None:
            raise NotFoundError(
                f"The output of task {task.id} is gone.", code="output_expired", status=410, task_id=task.id
            )
        download(self._transport, _route(task.id, "output"), target, task.output, on_progress)
        return target


def raise_unless_succeeded(task: Task) -> None:
    """Raise what a task without an output stands for."""
    if task.succeeded:
        return
    if not task.terminal:
        raise ApiError(
            f"Task {task.id} has not finished yet; it is {task.state}.",
            code="task_not_finished", status=409, retryable=True, task_id=task.id,
        )  # fmt: skip
    kind: type[TaskEndedError] = TaskCanceledError if task.state == "canceled" else TaskFailedError
    reason = task.reason or ("It was canceled." if task.state == "canceled" else "The server gave no reason.")
    code = f" ({task.reason_code})" if task.reason_code else ""
    raise kind(
        f"Task {task.id} was canceled."
        if kind is TaskCanceledError
        else f"Task {task.id} failed{code}: {reason}",
        task,
    )


def _route(task_id: str, *rest: str) -> str:
    return "/".join(("/v1/tasks", segment(task_id), *rest))
