"""What ``infer`` tells a script by its exit status, and the sentence and JSON for each error. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import click

from inference_server_client.errors import (
    AnswerError,
    ApiError,
    ConfigurationError,
    InferenceServerError,
    InputError,
    IntegrityError,
    KeyRefusedError,
    NotFoundError,
    TaskCanceledError,
    TaskEndedError,
    TaskFailedError,
    UnpackError,
    UnreachableError,
    WaitTimeoutError,
)


class ExitCode(IntEnum):
    """The exit statuses of every command."""

    OK = 0
    TASK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    KEY_REFUSED = 4
    NOT_FOUND = 5
    CANCELED = 6
    REFUSED = 7
    LOCAL_FILES = 8
    TIMED_OUT = 9
    MISTAKE = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES_HELP = """\b
Exit status: 0 done · 1 the task failed · 2 wrong usage · 3 the server
cannot be reached · 4 the key is refused · 5 not found, or gone ·
6 the task was canceled · 7 the server refuses the request, or the task
has not finished · 8 local files (would be overwritten, disk full,
damaged) · 9 --timeout passed · 130 interrupted with Ctrl-C"""


class InterruptedByUserError(Exception):
    """Ctrl-C, with the sentence that says what is left behind."""


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit status that an error leads to."""
    if isinstance(error, ApiError) and error.code in _STATUS_OF_CODE:
        return _STATUS_OF_CODE[error.code]
    if (
        isinstance(error, ApiError)
        and not isinstance(error, KeyRefusedError)
        and error.status in {502, 503, 504}
    ):
        return ExitCode.UNREACHABLE
    return next((code for kind, code, _ in _KINDS if isinstance(error, kind)), ExitCode.MISTAKE)


def describe_error(error: BaseException) -> dict[str, Any]:
    """The error as ``--json`` shows it; its ``code`` is the server's where there is one."""
    described: dict[str, Any] = {
        "code": next((name for kind, _, name in _KINDS if isinstance(error, kind)), "internal_mistake"),
        "detail": sentence_of(error),
        "retryable": False,
        "task_id": None,
        "exit_code": int(exit_code_of(error)),
    }
    if isinstance(error, InferenceServerError):
        described["retryable"] = error.retryable
    if isinstance(error, ApiError):
        described |= {"code": error.code, "task_id": error.task_id, "status": error.status}
    if isinstance(error, TaskEndedError):
        described |= {"task_id": error.task.id, "task": dict(error.task.document)}
    return described


def sentence_of(error: BaseException) -> str:
    """What happened and what to do, in a sentence or two."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}."
    return f"{error}{_advice(error)}"


def _advice(error: BaseException) -> str:
    if isinstance(error, KeyRefusedError) and error.status == 401:
        return " Give a valid key: infer login, --key-file or INFER_KEY."
    if isinstance(error, KeyRefusedError):
        return " Another key may have the right; give it with --key-file or INFER_KEY."
    if isinstance(error, TaskFailedError):
        return f"\nIts log: infer logs {error.task.id}"
    if isinstance(error, ApiError) and error.code == "task_not_finished" and error.task_id:
        return f" Wait for it with: infer status --wait {error.task_id}"
    return ""


_STATUS_OF_CODE = {
    "task_failed": ExitCode.TASK_FAILED,
    "task_canceled": ExitCode.CANCELED,
}

# The first kind that fits decides; the name is the ``code`` of errors that the server did not name.
_KINDS: list[tuple[type[BaseException], ExitCode, str]] = [
    (TaskCanceledError, ExitCode.CANCELED, "task_canceled"),
    (TaskFailedError, ExitCode.TASK_FAILED, "task_failed"),
    (KeyRefusedError, ExitCode.KEY_REFUSED, "key_refused"),
    (NotFoundError, ExitCode.NOT_FOUND, "not_found"),
    (ApiError, ExitCode.REFUSED, "refused"),
    (UnreachableError, ExitCode.UNREACHABLE, "unreachable"),
    (AnswerError, ExitCode.UNREACHABLE, "not_our_server"),
    (ConfigurationError, ExitCode.USAGE, "usage"),
    (InputError, ExitCode.USAGE, "usage"),
    (WaitTimeoutError, ExitCode.TIMED_OUT, "timed_out"),
    (IntegrityError, ExitCode.LOCAL_FILES, "damaged"),
    (UnpackError, ExitCode.LOCAL_FILES, "not_unpacked"),
    (click.Abort, ExitCode.INTERRUPTED, "interrupted"),
    (InterruptedByUserError, ExitCode.INTERRUPTED, "interrupted"),
    (KeyboardInterrupt, ExitCode.INTERRUPTED, "interrupted"),
    (click.ClickException, ExitCode.USAGE, "usage"),
    (OSError, ExitCode.LOCAL_FILES, "local_files"),
]
