"""What a worker and the private API say to each other about a leased task, as JSON.

Frozen values with one way in (``from_json``) and one way out (``to_json``). Readers ignore fields that
they do not know, so that either side may be upgraded first; a missing or ill-typed field raises
``MessageError``. The golden files in ``tests/contract`` pin every shape.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from contracts.reasons import ReasonCode
from contracts.states import Phase

# Beyond this, JSON readers in other languages lose digits.
_MOST = 2**53


class MessageError(ValueError):
    """A message lacks a field, or a field has the wrong type."""


class SlotKind(StrEnum):
    """What a slot offers; a task asks for exactly one kind, so a GPU task never sits before a CPU slot."""

    CPU = "cpu"
    GPU = "gpu"


class PullPolicy(StrEnum):
    """When the engine asks a registry for the image."""

    IF_MISSING = "if_missing"  # A local image wins.
    ALWAYS = "always"


class SandboxProfile(StrEnum):
    """How tightly a model is held."""

    STRICT = "strict"  # An unprivileged user and a read-only root.
    COMPATIBLE = "compatible"  # The image's own user and a writable root; all else as strict.


class Message:
    """JSON in and out for the frozen dataclasses of this room."""

    def to_json(self) -> dict[str, Any]:
        """This message as a JSON object."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # Every subclass is a dataclass.

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Read a JSON object; raises ``MessageError`` that names the field at fault."""
        message: Self = _read(cls, value, cls.__name__)
        return message


@dataclass(frozen=True, kw_only=True)
class BlobFacts(Message):
    """Size in bytes and lower-case hexadecimal SHA-256 of a stored zip."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Message):
    """Which image to run: ``image_id`` and ``digest`` are pinned once first resolved, null before."""

    tag: str
    image_id: str | None
    digest: str | None
    pull_policy: PullPolicy


@dataclass(frozen=True, kw_only=True)
class MountPoints(Message):
    """Absolute paths inside the container."""

    input: str
    output: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Limits(Message):
    """What one run may use. Bytes, seconds, and counts; ``cpus`` may be a fraction."""

    time_seconds: float
    memory_bytes: int
    cpus: float
    pids: int
    output_bytes: int
    output_files: int
    log_bytes: int
    shm_bytes: int
    tmp_bytes: int


@dataclass(frozen=True, kw_only=True)
class Sandbox(Message):
    """The profile, and what an admin has relaxed in it."""

    profile: SandboxProfile
    network: bool
    tmp_exec: bool


@dataclass(frozen=True, kw_only=True)
class ClaimRequest(Message):
    """``POST /v1/leases``: a free slot asks for work and waits up to ``wait_seconds`` for it.

    ``task_id`` is the hint of the announcement that led here. It says that there is work; what runs is the
    task that is first in line, which may be another (priorities are the claim's, not the broker's).
    """

    node: str
    slot: str
    kinds: list[SlotKind]
    wait_seconds: float
    task_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Withdrawal(Message):
    """``POST /v1/leases/withdraw``: a slot that stops has the claim that is held for it answered at once.

    Hanging up would not do: the task might be on its way already, and a relay in between lose it.
    """

    node: str
    slot: str


@dataclass(frozen=True, kw_only=True)
class Lease(Message):
    """The answer to a claim: everything a worker needs to run one attempt of one task.

    Every later word about it carries ``token`` in the ``Lease-Token`` header.
    """

    lease_id: str
    token: int
    lease_seconds: float
    task_id: str
    attempt: int
    model: str
    model_version: int
    image: ImageSpec
    sandbox: Sandbox
    use_gpu: bool
    mounts: MountPoints
    limits: Limits
    allow_empty_output: bool
    input: BlobFacts
    content: BlobFacts | None
    # The X-Request-Id with which the task was sent, for logs and labels; null where nobody gave it one.
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """What the model says about itself: ``fraction`` in 0..1, either may be null."""

    fraction: float | None
    message: str | None


@dataclass(frozen=True, kw_only=True)
class ResolvedImage(Message):
    """The image that the engine has: its id, and its repository digest where there is one."""

    image_id: str
    digest: str | None


@dataclass(frozen=True, kw_only=True)
class Heartbeat(Message):
    """``POST /v1/leases/{id}/heartbeat``: renews the lease at once, then waits for a cancel request."""

    phase: Phase
    wait_seconds: float
    progress: Progress | None = None
    image: ResolvedImage | None = None


@dataclass(frozen=True, kw_only=True)
class HeartbeatAnswer(Message):
    """``log_bytes``: how much of this attempt's log is stored; an adopting worker goes on from there."""

    cancel_requested: bool
    log_bytes: int


@dataclass(frozen=True, kw_only=True)
class Completion(Message):
    """``POST /v1/leases/{id}/complete``: commit the uploaded output. ``durations``: seconds by phase."""

    output: BlobFacts
    exit_code: int
    durations: dict[str, float]
    # The model's last word about itself, which may be newer than the last heartbeat.
    progress: Progress | None = None


@dataclass(frozen=True, kw_only=True)
class Failure(Message):
    """``POST /v1/leases/{id}/fail``: this attempt is over without an output; the server decides on."""

    reason_code: ReasonCode
    reason: str
    exit_code: int | None
    durations: dict[str, float]
    progress: Progress | None = None


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _read(expected: Any, value: object, where: str) -> Any:
    origin = get_origin(expected)
    if origin in (Union, UnionType):
        inner = [option for option in get_args(expected) if option is not NoneType]
        return None if value is None else _read(inner[0], value, where)
    if origin is list:
        if not isinstance(value, list):
            raise MessageError(f"{where} must be a list")
        return [_read(get_args(expected)[0], item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise MessageError(f"{where} must be an object")
        return {str(key): _read(get_args(expected)[1], item, f"{where}.{key}") for key, item in value.items()}
    if is_dataclass(expected):
        return _read_object(expected, value, where)
    return _read_scalar(expected, value, where)


def _read_object(cls: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise MessageError(f"{where} must be an object")
    known = {field.name for field in fields(cls)}
    hints = _hints(cls)
    arguments = {
        name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items() if name in known
    }
    try:
        return cls(**arguments)
    except TypeError as error:
        raise MessageError(f"{where}: {error}") from error


def _read_scalar(expected: Any, value: object, where: str) -> Any:
    if issubclass(expected, StrEnum):
        try:
            return expected(value)
        except ValueError as error:
            raise MessageError(f"{where}: {error}") from error
    # JSON has one kind of number: a whole one may stand where a fraction is expected, and bool is no number.
    number = int | float if expected is float else expected
    if not isinstance(value, number) or (isinstance(value, bool) and expected is not bool):
        raise MessageError(f"{where} must be {expected.__name__}")
    if isinstance(value, str):
        # No database stores NUL; a model's last line may hold one, and its attempt must end all the same.
        return value.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    # Written so that NaN fails it too.
    if isinstance(value, int | float) and not -_MOST <= value <= _MOST:
        raise MessageError(f"{where} must be a number between -2^53 and 2^53")
    return float(value) if expected is float else value
