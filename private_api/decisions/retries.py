"""What becomes of a task whose attempt ended without an output.

Performed by ``private_api.store.leases``; this module only decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from contracts.reasons import REASONS, Fault, ReasonCode, fault_of
from contracts.timing import MAX_ATTEMPTS

# Seconds before the second, third, … attempt: short at first, since most such failures are passing ones.
_BACK_OFF_SECONDS = (1.0, 4.0, 15.0, 60.0)


@dataclass(frozen=True)
class Requeue:
    """Run again, not before ``delay_seconds`` from now; ``spoiled`` is the new count of spoiled attempts."""

    delay_seconds: float
    spoiled: int


@dataclass(frozen=True)
class Fail:
    """Ended for good, as failed."""


@dataclass(frozen=True)
class Cancel:
    """Ended for good, as canceled."""


Decision = Requeue | Fail | Cancel


def after_failure(code: ReasonCode, *, spoiled: int, cancel_requested: bool) -> Decision:
    """Decide for a task of which ``spoiled`` earlier attempts were lost to our infrastructure.

    A wish to cancel beats a retry, but not a failure that the model had already earned by itself.
    """
    if code is ReasonCode.CANCELED_BY_USER:
        return Cancel()
    if fault_of(code) is not Fault.OURS:
        return Fail()
    if cancel_requested:
        return Cancel()
    if not REASONS[code].spends_attempt:
        return Requeue(delay_seconds=0.0, spoiled=spoiled)
    if spoiled + 1 >= MAX_ATTEMPTS:
        return Fail()
    return Requeue(
        delay_seconds=_BACK_OFF_SECONDS[min(spoiled, len(_BACK_OFF_SECONDS) - 1)], spoiled=spoiled + 1
    )
