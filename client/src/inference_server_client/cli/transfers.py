"""The parts that several commands share around one task: pack and send, watch with Ctrl-C in mind, fetch.

They enter with a client and a reporter. Nothing here reads options.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from inference_server_client.cli.exit_codes import InterruptedByUserError
from inference_server_client.cli.interrupts import interrupt_deferred
from inference_server_client.cli.reporting import Reporter
from inference_server_client.client import Client
from inference_server_client.errors import ApiError, InputError, UnpackError
from inference_server_client.following import LogReceived, TaskChanged, follow
from inference_server_client.packing import Package, plan_package, ready_zip, write_package
from inference_server_client.quantities import format_size
from inference_server_client.results import Task
from inference_server_client.tasks import raise_unless_succeeded
from inference_server_client.terminal_text import LineSplitter
from inference_server_client.unpacking import unpack


@contextmanager
def packed(paths: Sequence[Path], reporter: Reporter, *, leave_out: Path | None = None) -> Iterator[Path]:
    """The zip to send: a ready one as it is, or one made for as long as it is needed."""
    ready = ready_zip(paths)
    if ready is not None:
        yield ready
        return
    package = plan_package(paths, leave_out=leave_out)
    for left_out in package.skipped:
        reporter.skipped(left_out.path, left_out.why)
    with tempfile.TemporaryDirectory(prefix="infer-") as scratch:
        _check_scratch(package, scratch)
        archive = Path(scratch) / "input.zip"
        with archive.open("wb") as stream, reporter.transfer("Zipping", package.size_bytes) as on_progress:
            write_package(package, stream, on_progress)
        yield archive


def _check_scratch(package: Package, scratch: str) -> None:
    free = shutil.disk_usage(scratch).free
    # Stored files need all of their size; deflated ones may need less, but nobody knows how much.
    if package.size_bytes > free:
        raise InputError(
            f"Zipping may need {format_size(package.size_bytes)}, and {tempfile.gettempdir()} has "
            f"{format_size(free)} free; set TMPDIR to a larger disk, or give a ready .zip."
        )


def submit(
    client: Client,
    model: str,
    archive: Path,
    reporter: Reporter,
    *,
    priority: int | None = None,
    idempotency_key: str | None = None,
) -> Task:
    """Send the zip, with a bar; after Ctrl-C says what became of it."""
    size = archive.stat().st_size
    sent = 0
    try:
        with reporter.transfer("Sending", size) as on_progress:

            def count(done: int) -> None:
                nonlocal sent
                sent = done
                on_progress(done)

            task = client.tasks.submit(
                model, archive, priority=priority, idempotency_key=idempotency_key, on_progress=count
            )
    except KeyboardInterrupt as error:
        if sent < size:
            raise InterruptedByUserError("Interrupted while sending; no task was started.") from error
        raise InterruptedByUserError(
            "Interrupted before the server's answer came; a task may have been started: see infer list"
        ) from error
    reporter.submitted(task)
    return task


def watch(
    client: Client,
    task: Task,
    reporter: Reporter,
    *,
    with_log: bool,
    timeout_seconds: float | None,
    command: str,
) -> Task:
    """The task once it has ended; Ctrl-C asks what to do with it. ``command``: how to come back to it."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    splitter = LineSplitter()
    offset = 0
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            with reporter.watching():
                for event in follow(
                    client.tasks, task.id, log_offset=offset, with_log=with_log, timeout_seconds=left
                ):
                    with interrupt_deferred():
                        if isinstance(event, TaskChanged):
                            task = event.task
                            reporter.log_lines(splitter.finish() if task.terminal else [])
                            reporter.changed(task)
                        elif isinstance(event, LogReceived):
                            reporter.log_lines(splitter.feed(event.chunk.data))
                            offset = event.chunk.next_offset
                        elif event.error is not None:
                            reporter.log_lines([f"(no more of the log: {event.error})"])
            return task
        except KeyboardInterrupt:
            if not task.terminal and _wants_cancel(task, command):
                _cancel(client, task)


def _wants_cancel(task: Task, command: str) -> bool:
    """Whether to cancel; raises ``InterruptedByUserError`` for leaving, and returns False for waiting on."""
    left = InterruptedByUserError(f"Task {task.id} goes on without us. Come back to it with: {command}")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise left
    try:
        answer = click.prompt(
            "\nCancel the task, leave it running, or wait on?",
            type=click.Choice(["cancel", "leave", "wait"]), default="leave", err=True,
        )  # fmt: skip
    except (click.Abort, KeyboardInterrupt) as error:
        raise left from error
    if answer == "leave":
        raise left
    return bool(answer == "cancel")


def _cancel(client: Client, task: Task) -> None:
    try:
        client.tasks.cancel(task.id)
    except ApiError as error:
        # It ended while we asked: what it ended with is shown as ever.
        if error.code != "task_finished":
            raise


def check_directory(directory: Path) -> None:
    """Find out before the long wait whether results could be written to ``directory``."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"{existing} is not a directory; choose another place for the results.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} may not be written to; choose another place for the results.")


def fetch(client: Client, task: Task, directory: Path, reporter: Reporter, *, force: bool) -> list[Path]:
    """Download the output and unpack it into ``directory``; returns the files."""
    raise_unless_succeeded(task)
    directory.mkdir(parents=True, exist_ok=True)
    # Beside the results, because a result of many GB fits there rather than into a temporary directory.
    archive = directory / f".infer-{task.id}.zip"
    try:
        with reporter.transfer("Fetching", task.output.size_bytes if task.output else 0) as on_progress:
            client.tasks.download_output(task, archive, on_progress=on_progress)
        files = unpack(archive, directory, overwrite=force)
    except UnpackError as error:
        raise UnpackError(
            f"{error} The server keeps the result: infer output {task.id} -o OTHER_DIR"
        ) from error
    except KeyboardInterrupt as error:
        raise InterruptedByUserError(
            f"Interrupted while fetching; go on with: infer output {task.id} -o {directory}"
        ) from error
    finally:
        archive.unlink(missing_ok=True)
    reporter.unpacked(task, directory, files)
    return files
