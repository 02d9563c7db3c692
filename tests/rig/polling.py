"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


# Looking costs the machine that is waited for. What was not there at once may be seen a little later.
_FIRST_PAUSE = 0.03
_LONGEST_PAUSE = 0.2
# Limits are meant for a machine with nothing else to do; others are as busy as all tests make them.
PATIENCE = 3.0


def eventually(look: Callable[[], _T | None], seconds: float, what: str, every: float | None = None) -> _T:
    """What ``look`` returns, as soon as that is true; fails with what it returned last.

    ``seconds`` is the time that it takes at most on a machine at rest; it has three times as long.
    It looks ``every`` so many seconds; unless told, soon at first and then less often.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    pause = every or _FIRST_PAUSE
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (last seen: {seen!r})"
        time.sleep(pause)
        if every is None:
            pause = min(_LONGEST_PAUSE, pause * 1.3)
