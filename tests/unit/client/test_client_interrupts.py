"""Ctrl-C and the moments that it must not cut in two."""

from __future__ import annotations

import signal

import pytest
from inference_server_client.cli.interrupts import interrupt_deferred


def test_ctrl_c_waits_for_the_end_of_the_moment():
    done: list[str] = []

    def moment() -> None:
        with interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        moment()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_is_heard_at_once():
    done: list[str] = []

    def moment() -> None:
        with interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("too late")

    with pytest.raises(KeyboardInterrupt):
        moment()
    assert done == []


def test_a_command_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
