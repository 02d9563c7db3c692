"""Whose turn it is among the nodes of a broker: decided without one."""

from __future__ import annotations

from contracts.announcements import broker_address
from contracts.broker_round import SETTLED_SECONDS, BrokerRound

ALONE = broker_address("amqp://me@a")
THREE = broker_address("amqp://me@a,b,c")


def test_a_single_node_is_paused_for_after_every_end() -> None:
    turn = BrokerRound(ALONE)
    for settled in (0.0, SETTLED_SECONDS * 100):
        assert turn.ended("it is gone", settled) == "it is gone"
        assert turn.node.host == "a"


def test_the_next_one_is_tried_at_once_until_all_have_failed() -> None:
    turn = BrokerRound(THREE, start=1)
    seen = [turn.node.host]
    for _ in range(2):
        assert turn.ended("connection refused", 0.0) is None
        seen.append(turn.node.host)
    assert seen == ["b", "c", "a"]
    # One reason that all have in common is said once
    assert turn.ended("connection refused", 0.0) == "connection refused"
    # And a new round begins with the first again
    assert turn.node.host == "b"
    assert turn.ended("connection refused", 0.0) is None


def test_different_reasons_are_said_with_their_nodes() -> None:
    turn = BrokerRound(THREE, start=0)
    turn.ended("connection refused", 0.0)
    turn.ended("timed out", 0.0)
    assert turn.ended("connection refused", 0.0) == (
        "a:5672: connection refused; b:5672: timed out; c:5672: connection refused"
    )


def test_a_connection_that_worked_begins_a_new_round() -> None:
    turn = BrokerRound(THREE, start=0)
    turn.ended("connection refused", 0.0)
    turn.ended("connection refused", 0.0)
    # Given that the third of them works for a while and then breaks off
    assert turn.ended("it broke off", 60.0) is None
    # Then both others have their turn before anybody pauses
    assert turn.ended("connection refused", 0.0) is None
    assert turn.ended("connection refused", 0.0) is not None


def test_a_broker_that_throws_everybody_out_is_not_asked_without_a_pause() -> None:
    turn = BrokerRound(THREE)
    ends = [turn.ended("it refuses", SETTLED_SECONDS / 2) for _ in range(3)]
    assert ends == [None, None, "it refuses"]


def test_everybody_begins_somewhere_else() -> None:
    assert {BrokerRound(THREE).node.host for _ in range(200)} == {"a", "b", "c"}
