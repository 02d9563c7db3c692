"""Why a task ended or went back to the queue: stable codes, and whose failure each one is.

Three kinds are kept apart for ever: the caller's, the model's, and ours. Only ours are run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Whose failure it is; the retry policy looks at nothing else."""

    CALLER = "caller"  # The input, or the caller's own wish.
    MODEL = "model"  # The image, its program, or what it was given by its registration.
    OURS = "ours"  # Engine, network, disk, worker: the task deserves another attempt.


class ReasonCode(StrEnum):
    """The machine-readable half of a task's reason; the sentence beside it is for people."""

    INPUT_INVALID = "input_invalid"
    CANCELED_BY_USER = "canceled_by_user"
    QUEUED_TOO_LONG = "queued_too_long"

    EXIT_NONZERO = "exit_nonzero"
    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    NO_OUTPUT = "no_output"
    OUTPUT_TOO_LARGE = "output_too_large"
    OUTPUT_INVALID = "output_invalid"
    IMAGE_UNAVAILABLE = "image_unavailable"
    IMAGE_INVALID = "image_invalid"
    CONTENT_INVALID = "content_invalid"

    WORKER_LOST = "worker_lost"
    ENGINE_FAILED = "engine_failed"
    PULL_FAILED = "pull_failed"
    STORAGE_FAILED = "storage_failed"
    NODE_FULL = "node_full"
    PHASE_TIMED_OUT = "phase_timed_out"
    DRAINED = "drained"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One code, whose failure it is, and whether it costs the task one of its attempts."""

    fault: Fault
    spends_attempt: bool = True


_CALLER = Reason(fault=Fault.CALLER)
_MODEL = Reason(fault=Fault.MODEL)
_OURS = Reason(fault=Fault.OURS)

REASONS: dict[ReasonCode, Reason] = {
    ReasonCode.INPUT_INVALID: _CALLER,
    ReasonCode.CANCELED_BY_USER: _CALLER,
    ReasonCode.QUEUED_TOO_LONG: _CALLER,
    ReasonCode.EXIT_NONZERO: _MODEL,
    ReasonCode.OUT_OF_MEMORY: _MODEL,
    ReasonCode.TIMED_OUT: _MODEL,
    ReasonCode.NO_OUTPUT: _MODEL,
    ReasonCode.OUTPUT_TOO_LARGE: _MODEL,
    ReasonCode.OUTPUT_INVALID: _MODEL,
    ReasonCode.IMAGE_UNAVAILABLE: _MODEL,
    ReasonCode.IMAGE_INVALID: _MODEL,
    ReasonCode.CONTENT_INVALID: _MODEL,
    ReasonCode.WORKER_LOST: _OURS,
    ReasonCode.ENGINE_FAILED: _OURS,
    ReasonCode.PULL_FAILED: _OURS,
    ReasonCode.STORAGE_FAILED: _OURS,
    ReasonCode.NODE_FULL: _OURS,
    ReasonCode.PHASE_TIMED_OUT: _OURS,
    # A worker that is told to stop hands its task back; that is nobody's failure.
    ReasonCode.DRAINED: Reason(fault=Fault.OURS, spends_attempt=False),
    ReasonCode.INTERNAL_ERROR: _OURS,
}


def fault_of(code: ReasonCode) -> Fault:
    """Whose failure ``code`` is."""
    return REASONS[code].fault
