"""The pause after many wrong keys."""

from __future__ import annotations

import time

import pytest

from contracts.problems import ProblemCode
from public_api.throttle import FailedKeyThrottle
from serving.problems import ProblemError
from tests.rig.polling import eventually


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still: wrong keys are counted by the clock's minutes, and the turn of one would show."""
    monkeypatch.setattr(time, "time", lambda: 1_750_000_000.0)


def exhausted(address: str) -> FailedKeyThrottle:
    throttle = FailedKeyThrottle(3)
    for number in range(3):
        throttle.check(address, f"wrong-{number}")
        throttle.failed(address, f"wrong-{number}")
    return throttle


def test_an_address_pauses_after_too_many_wrong_keys() -> None:
    # given
    throttle = exhausted("10.0.0.1")

    # when / then
    with pytest.raises(ProblemError) as caught:
        throttle.check("10.0.0.1", "another")
    assert caught.value.code is ProblemCode.RATE_LIMITED
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 61
    throttle.check("10.0.0.2", "another")


def test_a_key_that_was_right_lately_passes_from_a_pausing_address() -> None:
    # given
    throttle = exhausted("10.0.0.1")
    throttle.succeeded("good")

    # when / then
    throttle.check("10.0.0.1", "good")


def test_a_key_that_turned_wrong_is_no_longer_known() -> None:
    # given
    throttle = exhausted("10.0.0.1")
    throttle.succeeded("revoked")
    throttle.failed("10.0.0.1", "revoked")

    # when / then
    with pytest.raises(ProblemError):
        throttle.check("10.0.0.1", "revoked")


@pytest.mark.parametrize("other", ["2001:db8::2", "2001:db8::ffff:1"])
def test_addresses_of_one_ipv6_network_count_together(other: str) -> None:
    # given
    throttle = exhausted("2001:db8::1")

    # when / then
    with pytest.raises(ProblemError):
        throttle.check(other, "another")
    throttle.check("2001:db8:0:1::1", "another")


def test_an_ipv4_address_is_the_same_in_ipv6_clothes() -> None:
    # given
    throttle = exhausted("10.0.0.1")

    # when / then
    with pytest.raises(ProblemError):
        throttle.check("::ffff:10.0.0.1", "another")
    throttle.check("::ffff:10.0.0.2", "another")


def test_addresses_whose_minute_is_over_take_up_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # given wrong keys from very many networks, as one client with a large IPv6 prefix can send them
    throttle = FailedKeyThrottle(3)
    for number in range(500):
        throttle.failed(f"2001:db8:{number:x}::1", "wrong")

    # when
    later = time.time() + 600
    monkeypatch.setattr(time, "time", lambda: later)
    throttle.failed("10.0.0.1", "wrong")

    # then
    storage = throttle._limiter.storage
    assert eventually(
        lambda: sum(len(part) for part in vars(storage).values() if isinstance(part, dict)) < 20,
        10,
        "they are forgotten",
    )


def test_the_same_wrong_key_again_shuts_out_nobody_else_at_its_address():
    # Given a worker whose key was revoked, and which goes on asking
    throttle = FailedKeyThrottle(3)
    for _ in range(3):
        throttle.check("10.0.0.1", "revoked")
        throttle.failed("10.0.0.1", "revoked")
    # Then it has to pause
    with pytest.raises(ProblemError):
        throttle.check("10.0.0.1", "revoked")
    # And its neighbours, and its own renewed key, do not
    throttle.check("10.0.0.1", "renewed")
    throttle.check("10.0.0.2", "revoked")
