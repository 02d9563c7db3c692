"""A task watched live: its changes and its log lines as one stream of events.

Two threads ask the server (one for the task, one for the log) and put events on one queue; the caller's
loop takes them off. Nothing here prints, and nothing here changes the task.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from inference_server_client.errors import InferenceServerError, WaitTimeoutError
from inference_server_client.results import LogChunk, Task
from inference_server_client.tasks import Tasks

# How old a state may be when it is shown, at first and for tasks that take long.
_FRESH_SECONDS, _LATER_SECONDS, _LATER_AFTER_SECONDS = 1.0, 3.0, 120.0
# The end of the log follows the end of the task; it is not waited for longer than this.
_LOG_GRACE_SECONDS = 10.0
# A model that floods its log is slowed down by whoever shows it, not kept in memory.
_QUEUE_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class TaskChanged:
    """The task looks different than before; the last one of a stream is terminal."""

    task: Task


@dataclass(frozen=True, kw_only=True)
class LogReceived:
    """More of the log."""

    chunk: LogChunk


@dataclass(frozen=True, kw_only=True)
class LogEnded:
    """No more of the log will come; ``error`` says why where it is not simply over."""

    error: InferenceServerError | None = None


@dataclass(frozen=True, kw_only=True)
class _WatchFailed:
    error: BaseException


Event = TaskChanged | LogReceived | LogEnded


def follow(
    tasks: Tasks,
    task_id: str,
    *,
    log_offset: int = 0,
    with_log: bool = True,
    timeout_seconds: float | None = None,
) -> Iterator[Event]:
    """Events until the task has ended; its last change comes after its last log bytes.

    Raises ``WaitTimeoutError`` after ``timeout_seconds``, and what the watching raises (``NotFoundError``
    when the task is deleted meanwhile, say). Closing the iterator stops the threads at their next answer.
    """
    deadline = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    follower = _Follower(tasks, task_id)
    follower.start(follower.watch_task)
    if with_log:
        follower.start(lambda: follower.read_log(log_offset))
    ended: TaskChanged | None = None
    ended_at, log_over = 0.0, not with_log
    try:
        while ended is None or not (log_over or time.monotonic() > ended_at + _LOG_GRACE_SECONDS):
            if ended is None and time.monotonic() > deadline:
                raise WaitTimeoutError(f"Task {task_id} has not ended in time; it goes on without us.")
            try:
                # A bounded wait, so that Ctrl-C is heard on every system.
                event = follower.events.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(event, _WatchFailed):
                raise event.error
            if isinstance(event, TaskChanged) and event.task.terminal:
                ended, ended_at = event, time.monotonic()
                continue
            log_over = log_over or isinstance(event, LogEnded)
            yield event
        yield ended
    finally:
        follower.stopped.set()


class _Follower:
    def __init__(self, tasks: Tasks, task_id: str) -> None:
        self._tasks = tasks
        self._task_id = task_id
        self.events: queue.Queue[Event | _WatchFailed] = queue.Queue(_QUEUE_LENGTH)
        self.stopped = threading.Event()

    def start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name=f"follow {self._task_id}", daemon=True).start()

    def watch_task(self) -> None:
        """Put every change of the task on the queue, until it has ended."""
        last: Task | None = None
        started = time.monotonic()
        try:
            while not self.stopped.is_set():
                asked_at = time.monotonic()
                hold = _FRESH_SECONDS if asked_at - started < _LATER_AFTER_SECONDS else _LATER_SECONDS
                # The first question is not held: it shows the state that the task is in now.
                task = self._tasks.get(self._task_id, wait_seconds=hold if last else 0.0, patient=True)
                if task != last:
                    self._put(TaskChanged(task=task))
                if task.terminal:
                    return
                if last is not None:
                    self.stopped.wait(max(0.0, hold - (time.monotonic() - asked_at)))
                last = task
        except Exception as error:  # noqa: BLE001  # Whatever it is belongs to the loop that takes events off.
            self._put(_WatchFailed(error=error))

    def read_log(self, offset: int) -> None:
        """Put the log on the queue, until it has ended or cannot be had."""
        try:
            for chunk in self._tasks.logs(self._task_id, offset=offset, follow=True):
                self._put(LogReceived(chunk=chunk))
                if self.stopped.is_set():
                    return
            self._put(LogEnded())
        except InferenceServerError as error:
            self._put(LogEnded(error=error))
        except Exception as error:  # noqa: BLE001  # As above.
            self._put(_WatchFailed(error=error))

    def _put(self, event: Event | _WatchFailed) -> None:
        while not self.stopped.is_set():
            try:
                self.events.put(event, timeout=0.5)
            except queue.Full:
                continue
            return
