"""Asking something that may hang, so that whoever asked is answered in time all the same.

The scrape enters. An answer is kept for a while, the longer the more it cost; one question is under way at a
time, in a thread of its own, which goes on when nobody waits for it any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")

# A question may be under way for this part of the time at most.
_MOST_OF_THE_TIME = 1 / 20


class Probe(Generic[_Answer]):
    """One question."""

    def __init__(self, name: str, ask: Callable[[], _Answer], *, keep_seconds: float) -> None:
        self._name = name
        self._ask = ask
        self._keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._asked: Future[_Answer] | None = None
        self._ask_again_at = 0.0

    def begin(self) -> Future[_Answer]:
        """The answer, where there is one that is new enough; else it is being asked for from now on."""
        with self._lock:
            asked = self._asked
            if asked is None or (asked.done() and time.monotonic() >= self._ask_again_at):
                asked = self._asked = Future()
                threading.Thread(target=self._run, args=(asked,), name=self._name, daemon=True).start()
            return asked

    def answer(self, deadline: float) -> _Answer | None:
        """The answer; null where asking failed, or takes beyond ``deadline`` (a ``time.monotonic()``)."""
        try:
            return self.begin().result(max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            return None
        except Exception:  # noqa: BLE001 - Whatever a driver raises means the same here: there is no answer.
            return None

    def _run(self, asked: Future[_Answer]) -> None:
        began = time.monotonic()
        try:
            answer = self._ask()
        except Exception as error:  # noqa: BLE001 - It belongs to whoever asks for the answer.
            self._ask_again_at = time.monotonic() + self._keep_seconds
            asked.set_exception(error)
        else:
            now = time.monotonic()
            self._ask_again_at = now + max(self._keep_seconds, (now - began) / _MOST_OF_THE_TIME)
            asked.set_result(answer)
