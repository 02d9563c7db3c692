"""How long to wait before trying again: pure numbers, and one loop that uses them.

Whoever talks to something that may be away enters here; what is tried, and what counts as away, is theirs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from consumer.outside.errors import AbandonedError, ServerAwayError

_Result = TypeVar("_Result")

# The first retry is nearly at once: it is mostly a kept-alive connection that the other side had just closed.
FIRST_SECONDS = 0.05
# The longest pause: after an outage everybody is back within this time, and an outage costs few requests.
LONGEST_SECONDS = 5.0


def delays(
    first: float = FIRST_SECONDS,
    longest: float = LONGEST_SECONDS,
    jitter: Callable[[], float] = random.random,
) -> Iterator[float]:
    """Endless pauses in seconds, doubling from ``first`` up to ``longest``, each shortened by up to a half.

    The jitter keeps many workers from coming back in step after an outage.
    """
    pause = first
    while True:
        yield pause * (1 - jitter() / 2)
        pause = min(pause * 2, longest)


def persist(call: Callable[[], _Result], wait: Callable[[float], bool]) -> _Result:
    """``call`` until the server answers.

    ``wait(seconds)`` pauses and returns true when the result is no longer wanted (an ``Event.wait`` fits).
    Raises ``AbandonedError`` then, and whatever ``call`` raises other than ``ServerAwayError``.
    """
    for pause in delays():
        try:
            return call()
        except ServerAwayError as error:
            if wait(pause):
                raise AbandonedError("given up while the server was away") from error
    raise AssertionError("delays() never ends")
