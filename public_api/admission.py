"""How many requests of each kind may be under way, so that slow ones leave threads to quick ones.

The relay enters with every request. Uploads, downloads and held answers have a number of places each; what is
left of the server's threads serves short calls, which need none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from contracts.problems import ProblemCode
from public_api.routes import Kind
from serving.problems import ProblemError

_SENTENCES = {
    Kind.BULK: "All places for uploads and downloads are taken; try again in a moment.",
    Kind.WAIT: "All places for waiting are taken; ask again without a wait, or in a moment.",
}


class Admission:
    """Places by kind; ``enter`` takes one and returns what gives it back."""

    def __init__(self, *, bulk: int, wait: int) -> None:
        self._places = {Kind.BULK: threading.Semaphore(bulk), Kind.WAIT: threading.Semaphore(wait)}

    def enter(self, kind: Kind) -> Callable[[], None]:
        """Take a place; raises ``ProblemError`` (503) where none is free. Leaving twice does no harm."""
        places = self._places.get(kind)
        if places is None:
            return lambda: None
        if not places.acquire(blocking=False):
            raise ProblemError(ProblemCode.UNAVAILABLE, _SENTENCES[kind], retry_after=2)
        held = [places]

        def leave() -> None:
            if held:
                held.pop().release()

        return leave
