"""What can go wrong, as exceptions; every module of this package raises these and nothing else on purpose.

    InferenceServerError
    ├── ConfigurationError       server address, key or certificate cannot be used
    ├── InputError               what is to be sent is missing, empty or changed meanwhile
    ├── DirectWayError           the way around the server did not work; never leaves this package
    ├── UnreachableError         no connection, or it broke and could not be mended in time
    ├── AnswerError              an answer came that is not this server's (a proxy's empty 200, a web page)
    ├── ApiError                 the server's problem+json: code, status, detail, retryable, task_id
    │   ├── KeyRefusedError      401 or 403
    │   └── NotFoundError        404 or 410
    ├── TaskEndedError           the task ended without an output; carries the task
    │   ├── TaskFailedError
    │   └── TaskCanceledError
    ├── WaitTimeoutError         the task had not ended when the caller's patience had
    ├── IntegrityError           bytes differ from the size or SHA-256 that was recorded for them
    └── UnpackError              a zip is unsafe to unpack, or would overwrite files

Messages are sentences for people and never contain a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_server_client.results import Task


class InferenceServerError(Exception):
    """Everything that this package raises on purpose; ``retryable``: the same request may succeed later."""

    retryable = False
    retry_after_seconds: float | None = None


class ConfigurationError(InferenceServerError):
    """The server's address, the key or the certificate file cannot be used as given."""


class DirectWayError(InferenceServerError):
    """The store to which the server sent us did not give us the file; the server itself may."""


class InputError(InferenceServerError):
    """What is to be sent cannot be sent."""


class UnreachableError(InferenceServerError):
    """No connection to the server, or it broke; ``retryable`` is false where only a person can mend it."""

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class AnswerError(InferenceServerError):
    """An answer that this server never gives: something in between answered, or cut the answer off."""

    retryable = True


class ApiError(InferenceServerError):
    """The server refused, and said why."""

    def __init__(
        self,
        detail: str,
        *,
        code: str,
        status: int,
        retryable: bool = False,
        task_id: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.retryable = retryable
        self.task_id = task_id
        self.retry_after_seconds = retry_after_seconds


class KeyRefusedError(ApiError):
    """The key is missing, unknown, expired or revoked, or may not do that."""


class NotFoundError(ApiError):
    """There is no such thing, or it is past its retention."""


class TaskEndedError(InferenceServerError):
    """The task has ended and has no output."""

    def __init__(self, message: str, task: Task) -> None:
        super().__init__(message)
        self.task = task


class TaskFailedError(TaskEndedError):
    """The task failed; ``task.reason_code`` and ``task.reason`` say why."""


class TaskCanceledError(TaskEndedError):
    """Somebody canceled the task."""


class WaitTimeoutError(InferenceServerError):
    """The task goes on, but the caller wanted to wait no longer."""


class IntegrityError(InferenceServerError):
    """Bytes that arrived are not the bytes that were recorded."""


class UnpackError(InferenceServerError):
    """A zip was not unpacked; nothing was overwritten."""
