"""Trying again: how long between, and when to stop."""

from __future__ import annotations

from itertools import islice

import pytest

from consumer.outside.backoff import delays, persist
from consumer.outside.errors import AbandonedError, ServerAwayError, StaleLeaseError


def test_pauses_double_up_to_the_longest() -> None:
    assert list(islice(delays(1, 5, lambda: 0.0), 5)) == [1, 2, 4, 5, 5]


def test_jitter_shortens_by_a_half_at_most() -> None:
    assert list(islice(delays(1, 5, lambda: 1.0), 3)) == [0.5, 1, 2]


def test_a_call_is_repeated_until_the_server_answers() -> None:
    answers = iter([ServerAwayError("a"), ServerAwayError("b"), "result"])

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert persist(call, lambda _seconds: False) == "result"


def test_persistence_ends_when_nobody_wants_the_result() -> None:
    def call() -> None:
        raise ServerAwayError("away")

    with pytest.raises(AbandonedError):
        persist(call, lambda _seconds: True)


def test_other_errors_pass_at_once() -> None:
    def call() -> None:
        raise StaleLeaseError("over")

    with pytest.raises(StaleLeaseError):
        persist(call, lambda _seconds: False)
