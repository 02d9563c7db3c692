"""How many requests of each kind may be under way, so that slow ones leave threads to quick ones.

The relay enters with every request, before it reads a byte of its body. Each kind has a number of places, and
only a part of them may be held by senders whose small body has not arrived: nobody has judged their keys yet,
so that they could be anyone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contracts.problems import ProblemCode
from public_api.metrics import PLACES, PLACES_IN_USE, REFUSALS
from public_api.routes import Kind
from serving.problems import ProblemError

_SENTENCES = {
    Kind.BULK: "All places for uploads and downloads are taken; try again in a moment.",
    Kind.WAIT: "All places for waiting are taken; ask again without a wait, or in a moment.",
    Kind.CONTROL: "Too many requests are under way; try again in a moment.",
}
# Short calls take milliseconds, so a burst of them is over soon and need not be refused.
_PATIENCE_SECONDS = {Kind.BULK: 0.0, Kind.WAIT: 0.0, Kind.CONTROL: 2.0}


class Admission:
    """Places by kind; ``enter`` takes one and returns what gives it back."""

    def __init__(self, *, bulk: int, wait: int, control: int) -> None:
        numbers = {Kind.BULK: bulk, Kind.WAIT: wait, Kind.CONTROL: control}
        self._places = {kind: threading.Semaphore(number) for kind, number in numbers.items()}
        self._receiving = {
            kind: threading.Semaphore(max(1, number * 3 // 4)) for kind, number in numbers.items()
        }
        for kind, number in numbers.items():
            PLACES.labels(kind.value).set(number)

    def enter(self, kind: Kind) -> Callable[[], None]:
        """Take a place; raises ``ProblemError`` (503) where none is free. Leaving twice does no harm."""
        places = self._places[kind]
        if not places.acquire(timeout=_PATIENCE_SECONDS[kind]):
            raise _refusal(kind)
        in_use = PLACES_IN_USE.labels(kind.value)
        in_use.inc()
        held = [places]

        def leave() -> None:
            if held:
                held.pop().release()
                in_use.dec()

        return leave

    @contextmanager
    def receiving(self, kind: Kind) -> Iterator[None]:
        """Be one of those, within their places, whose small body is awaited; raises as ``enter`` does."""
        places = self._receiving[kind]
        if not places.acquire(blocking=False):
            raise _refusal(kind)
        try:
            yield
        finally:
            places.release()


def _refusal(kind: Kind) -> ProblemError:
    REFUSALS.labels(kind.value).inc()
    return ProblemError(ProblemCode.UNAVAILABLE, _SENTENCES[kind], retry_after=2)
