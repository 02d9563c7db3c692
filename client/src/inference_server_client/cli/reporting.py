"""What ``infer run`` and its kin show while something lasts: for people on standard error, or as JSON lines.

Two reporters behind one protocol. They are told what happens; they decide nothing.
"""

# ruff: noqa: D102  # The protocol describes the methods, once for both.

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.status import Status
from rich.text import Text

from inference_server_client.cli.invocation import Invocation
from inference_server_client.quantities import format_duration, format_size
from inference_server_client.results import Task
from inference_server_client.terminal_text import sanitise

OnProgress = Callable[[int], None]
_LISTED_FILES = 20
# How often a file that is not a terminal gets a line about progress.
_PROGRESS_EVERY_SECONDS = 5.0
_STYLES = {"succeeded": "green", "failed": "red", "canceled": "yellow"}


class Reporter(Protocol):
    """Told what happens, in this order."""

    def skipped(self, path: Path, why: str) -> None:
        """Something is not sent."""

    def transfer(self, what: str, total_bytes: int) -> contextlib.AbstractContextManager[OnProgress]:
        """Bytes are zipped, sent, fetched or unpacked; the function given is told how many so far."""

    def submitted(self, task: Task) -> None:
        """The server has accepted the task."""

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Around the time in which the task is waited for."""

    def changed(self, task: Task) -> None:
        """The task's state, attempt or progress is another."""

    def log_lines(self, lines: Sequence[str]) -> None:
        """Whole lines of the log, sanitised."""

    def unpacked(self, task: Task, directory: Path, files: Sequence[Path]) -> None:
        """The results are there."""


def moment(when: datetime | None) -> str:
    """A time for people, in their own time zone."""
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S") if when else ""


def describe_state(task: Task, now: datetime | None = None) -> str:
    """One line on how a task stands."""
    words = [task.state]
    if task.attempt > 1 and not task.terminal:
        words.append(f"(attempt {task.attempt})")
    if task.state == "queued" and task.queue_position is not None:
        words.append(f"behind {task.queue_position} others" if task.queue_position else "and next in line")
    if task.waiting_for and not task.terminal:
        words.append(f"waiting for {task.waiting_for}")
    if task.started_at is not None and task.started_at.tzinfo is not None:
        until = task.finished_at or now or datetime.now(UTC)
        seconds = max(0.0, (until - task.started_at).total_seconds())
        words.append(f"{'after' if task.terminal else 'for'} {format_duration(seconds)}")
    if task.progress is not None and not task.terminal:
        if task.progress.fraction is not None:
            words.append(f"· {task.progress.fraction:.0%}")
        if task.progress.message:
            words.append(f"· {task.progress.message}")
    if task.reason_code:
        words.append(f"· {task.reason_code}")
    return sanitise(" ".join(words))


class HumanReporter:
    """A live line and bars on a terminal; plain lines elsewhere."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        self._console = invocation.console
        # A dumb terminal cannot redraw a line.
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._status: Status | None = None
        self._last: Task | None = None
        self._said_at = 0.0

    def skipped(self, path: Path, why: str) -> None:
        self._invocation.say(f"Left out: {path} ({why})", style="yellow")

    @contextlib.contextmanager
    def transfer(self, what: str, total_bytes: int) -> Iterator[OnProgress]:
        if not self._live:
            yield lambda _done: None
            self._invocation.say(f"{what}: {format_size(total_bytes)}")
            return
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        with bar:
            row = bar.add_task(what, total=total_bytes)
            yield lambda done: bar.update(row, completed=done)

    def submitted(self, task: Task) -> None:
        self._invocation.say(f"Task {task.id} for {task.model}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        if not self._live:
            yield
            return
        try:
            with self._console.status(Text("waiting")) as self._status:
                yield
        finally:
            self._status = None

    def changed(self, task: Task) -> None:
        is_news = self._last is None or (task.state, task.attempt) != (self._last.state, self._last.attempt)
        if self._status is not None and not task.terminal:
            self._status.update(Text(describe_state(task)))
        elif is_news or time.monotonic() > self._said_at + _PROGRESS_EVERY_SECONDS:
            self._invocation.say(describe_state(task), style=_STYLES.get(task.state, ""))
            self._said_at = time.monotonic()
        self._last = task

    def log_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(Text("  | ", style="dim") + Text(line))

    def unpacked(self, task: Task, directory: Path, files: Sequence[Path]) -> None:  # noqa: ARG002
        for path in files[:_LISTED_FILES]:
            self._invocation.say(f"  {path}")
        if len(files) > _LISTED_FILES:
            self._invocation.say(f"  … and {len(files) - _LISTED_FILES} more")
        count = "1 file" if len(files) == 1 else f"{len(files)} files"
        self._invocation.say(f"The results are in {directory} ({count}).", style="green")


class JsonReporter:
    """One JSON object a line on standard output; ``event`` says what it is."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        invocation.as_events = True

    def skipped(self, path: Path, why: str) -> None:
        self._emit("skipped", path=str(path), why=why)

    @contextlib.contextmanager
    def transfer(self, what: str, total_bytes: int) -> Iterator[OnProgress]:
        self._emit("transfer_started", what=what, total_bytes=total_bytes)
        yield lambda _done: None
        self._emit("transfer_finished", what=what, total_bytes=total_bytes)

    def submitted(self, task: Task) -> None:
        self._emit("submitted", task=task.document)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        yield

    def changed(self, task: Task) -> None:
        self._emit("changed", task=task.document)

    def log_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._emit("log", line=line)

    def unpacked(self, task: Task, directory: Path, files: Sequence[Path]) -> None:
        self._emit(
            "finished", task=task.document, directory=str(directory), files=[str(path) for path in files]
        )

    def _emit(self, event: str, **rest: object) -> None:
        self._invocation.emit({"event": event, **rest})


def reporter_for(invocation: Invocation) -> Reporter:
    """The reporter that ``--json``, or its absence, asks for."""
    return JsonReporter(invocation) if invocation.as_json else HumanReporter(invocation)
