"""Waiting for something to become true, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def eventually(look: Callable[[], _T | None], seconds: float, what: str, every: float = 0.05) -> _T:
    """What ``look`` returns, as soon as that is true; fails after ``seconds`` with what it returned last."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (last seen: {seen!r})"
        time.sleep(every)
