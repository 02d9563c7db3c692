"""Asking something that may hang: whoever asks is answered in time."""

from __future__ import annotations

import threading
import time

from private_api.probe import Probe
from tests.rig.polling import eventually


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_an_answer_is_kept_for_a_while_and_asked_for_anew_after_it() -> None:
    answers = iter(range(100))
    kept = Probe("t", lambda: next(answers), keep_seconds=60)
    fresh = Probe("t", lambda: next(answers), keep_seconds=0)

    assert [kept.answer(soon()) for _ in range(3)] == [0, 0, 0]
    assert eventually(lambda: fresh.answer(soon()) != fresh.answer(soon()), 5, "it is asked anew")


def test_an_answer_that_was_dear_is_kept_longer() -> None:
    asked = []

    def ask() -> bool:
        asked.append(1)
        time.sleep(0.1)
        return True

    probe = Probe("t", ask, keep_seconds=0)
    began = time.monotonic()
    while time.monotonic() - began < 1:
        assert probe.answer(soon())

    # Once at the beginning; the next time would have been after two seconds.
    assert len(asked) == 1


def test_what_hangs_is_no_answer_and_is_asked_only_once() -> None:
    release = threading.Event()
    asked = []

    def ask() -> str:
        asked.append(1)
        release.wait(30)
        return "at last"

    probe = Probe("t", ask, keep_seconds=60)
    began = time.monotonic()

    assert [probe.answer(soon(0.05)) for _ in range(3)] == [None, None, None]
    assert time.monotonic() - began < 5
    release.set()
    assert probe.answer(soon()) == "at last"
    assert len(asked) == 1


def test_what_fails_is_no_answer() -> None:
    def ask() -> str:
        raise OSError("away")

    assert Probe("t", ask, keep_seconds=60).answer(soon()) is None
