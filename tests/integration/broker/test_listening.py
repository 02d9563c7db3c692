"""A slot hears of tasks over a real broker: one at a time, none lost, and never in anybody's way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from consumer.outside.listener import Listener
from contracts.announcements import (
    DEAD_LETTER_QUEUE,
    Announcement,
    dead_letter_arguments,
    encode,
    queue_arguments,
)
from tests.rig.brokers import QUEUES, TestBroker
from tests.rig.polling import eventually

ONE, TWO, THREE = ("1" * 32, "2" * 32, "3" * 32)
QUEUE = "tasks.cpu"

Listening = Callable[..., Listener]


def declare(broker: TestBroker) -> None:
    with broker.channel() as channel:
        for queue in QUEUES:
            channel.queue_declare(queue, durable=True, arguments=queue_arguments())
        channel.queue_declare(DEAD_LETTER_QUEUE, durable=True, arguments=dead_letter_arguments())


def announce(broker: TestBroker, *task_ids: str) -> None:
    broker.publish(QUEUE, *(encode(Announcement(task_id=task_id)) for task_id in task_ids))


@pytest.fixture
def listening(broker: TestBroker) -> Iterator[Listening]:
    """Makes listeners that have reached the broker."""
    made = []

    def listen(*, reached: bool = True) -> Listener:
        listener = Listener(broker.worker_address, QUEUE, "a test")
        made.append(listener)
        listener.start()
        if reached:
            eventually(lambda: listener.is_reachable, 20, "the broker is reached", every=0.01)
        return listener

    yield listen
    for listener in made:
        listener.close()


@pytest.fixture
def listener(broker: TestBroker, listening: Listening) -> Listener:
    declare(broker)
    return listening()


class Taking(threading.Thread):
    """``take`` in a thread of its own."""

    def __init__(self, listener: Listener, *, forget: bool = False) -> None:
        super().__init__(daemon=True)
        self._listener = listener
        self._forget = forget
        self.heard: str | None = None
        self.start()

    def run(self) -> None:
        heard = self._listener.take(60)
        self.heard = None if heard is None else heard.task_id
        if heard is not None and self._forget:
            self._listener.forget(heard)


def test_an_announcement_is_heard_and_forgotten(broker: TestBroker, listener: Listener) -> None:
    # Given a slot that waits
    taking = Taking(listener)
    broker.wait_consumers(QUEUE, 1)
    # When
    announce(broker, ONE)
    taking.join(10)
    # Then
    assert taking.heard == ONE
    assert listener.take(0.2) is None


def test_a_slot_holds_one_announcement_and_no_second(broker: TestBroker, listener: Listener) -> None:
    # Given two tasks, and a slot that hears of one
    announce(broker, ONE, TWO)
    heard = listener.take(10)
    assert heard is not None
    # Then the other waits for somebody else, before and after the claim was answered
    broker.wait_ready(QUEUE, 1)
    listener.forget(heard)
    broker.wait_consumers(QUEUE, 0)
    assert broker.ready(QUEUE) == 1
    # And it can be heard in its turn
    second = listener.take(10)
    assert second is not None
    assert {heard.task_id, second.task_id} == {ONE, TWO}


def test_an_announcement_that_is_given_back_is_heard_by_another(
    broker: TestBroker, listener: Listener, listening: Listening
) -> None:
    announce(broker, ONE)
    heard = listener.take(10)
    assert heard is not None
    listener.give_back(heard)
    again = listening().take(10)
    assert again is not None
    assert again.task_id == ONE


def test_a_slot_that_waited_in_vain_listens_no_more(broker: TestBroker, listener: Listener) -> None:
    # Given
    assert listener.take(0.2) is None
    broker.wait_consumers(QUEUE, 0)
    # When something comes
    announce(broker, ONE)
    # Then it is there for whoever asks next
    heard = listener.take(10)
    assert heard is not None
    assert heard.task_id == ONE


def test_what_cannot_be_read_becomes_a_dead_letter(broker: TestBroker, listener: Listener) -> None:
    # Given garbage before an announcement
    broker.publish(QUEUE, b"garbage", b'{"version": 2}')
    announce(broker, ONE)
    # When
    heard = listener.take(10)
    # Then it is out of the way, and kept
    assert heard is not None
    assert heard.task_id == ONE
    broker.wait_ready(DEAD_LETTER_QUEUE, 2)
    assert broker.take(DEAD_LETTER_QUEUE, 2) == [b"garbage", b'{"version": 2}']


def test_who_is_told_to_leave_leaves_at_once(broker: TestBroker, listener: Listener) -> None:
    # Given
    taking = Taking(listener)
    broker.wait_consumers(QUEUE, 1)
    # When
    listener.leave()
    taking.join(2)
    # Then
    assert not taking.is_alive()
    assert taking.heard is None
    announce(broker, ONE)
    broker.wait_consumers(QUEUE, 0)
    assert broker.ready(QUEUE) == 1
    assert not listener.is_reachable


def test_the_announcement_of_a_slot_that_dies_is_heard_by_another(
    broker: TestBroker, listener: Listener, listening: Listening
) -> None:
    announce(broker, ONE)
    assert listener.take(10) is not None
    broker.close_connections("worker")
    heard = listening().take(20)
    assert heard is not None
    assert heard.task_id == ONE


def test_a_connection_closed_while_waiting_is_made_again(broker: TestBroker, listener: Listener) -> None:
    # Given
    taking = Taking(listener)
    broker.wait_consumers(QUEUE, 1)
    # When
    broker.close_connections("worker")
    taking.join(10)
    # Then whoever waited is told, and soon hears again
    assert not taking.is_alive()
    eventually(lambda: listener.is_reachable, 10, "the broker is reached again")
    announce(broker, ONE)
    assert listener.take(10) is not None


def test_what_became_of_a_message_may_be_said_too_late(broker: TestBroker, listener: Listener) -> None:
    # Given a slot that holds an announcement when its connection breaks
    announce(broker, ONE)
    heard = listener.take(10)
    assert heard is not None
    broker.close_connections("worker")
    eventually(lambda: broker.ready(QUEUE) == 1, 10, "the message is back")
    eventually(lambda: listener.is_reachable, 10, "the broker is reached again")
    # When its claim is answered
    listener.forget(heard)
    # Then the message comes once more, which harms nobody
    assert listener.take(10) is not None


def test_a_queue_that_vanishes_while_waiting_is_awaited(
    broker: TestBroker, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    taking = Taking(listener)
    broker.wait_consumers(QUEUE, 1)
    # When
    broker.delete_queues(QUEUE)
    taking.join(10)
    # Then
    assert not taking.is_alive()
    assert not listener.is_reachable
    eventually(lambda: "queue tasks.cpu is gone" in caplog.text, 5, "the log says so")
    # And when it is there again
    declare(broker)
    eventually(lambda: listener.is_reachable, 30, "the queue is found")
    announce(broker, ONE)
    assert listener.take(10) is not None


def test_a_queue_that_is_not_there_yet_is_awaited(broker: TestBroker, listening: Listening) -> None:
    listener = listening(reached=False)
    assert listener.take(10) is None
    declare(broker)
    eventually(lambda: listener.is_reachable, 30, "the queue is found")


def test_a_consumers_user_needs_no_more_than_to_read(broker: TestBroker, listener: Listener) -> None:
    # Given what every other test does as that user: it could not even declare a queue
    assert broker.worker_address.user == "worker"
    gpu = Listener(broker.worker_address, DEAD_LETTER_QUEUE, "a test")
    gpu.start()
    # Then what is not for its eyes it does not hear
    broker.publish(DEAD_LETTER_QUEUE, encode(Announcement(task_id=ONE)))
    eventually(lambda: gpu.is_reachable, 10, "the broker is reached")
    assert gpu.take(5) is None
    gpu.close()


def test_a_connection_lives_on_while_its_slot_is_busy(
    broker: TestBroker, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker that gives up who is silent for two seconds
    monkeypatch.setattr("consumer.outside.broker.HEARTBEAT_SECONDS", 1)
    declare(broker)
    listener = listening()
    announce(broker, ONE)
    heard = listener.take(10)
    assert heard is not None
    # When a slot is busy for longer than that
    until = time.monotonic() + 5
    eventually(lambda: time.monotonic() > until, 10, "its task has run")
    # Then it is still the same connection: what it held is not back
    assert broker.ready(QUEUE) == 0
    listener.forget(heard)
    assert listener.take(0.5) is None


def test_a_wrong_password_is_named_by_its_variable(
    broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wrong = TestBroker(broker.part, broker.name, made=False)
    wrong.worker_url = wrong.worker_url.replace("worker:", "worker:not-")
    listener = Listener(wrong.worker_address, QUEUE, "a test")
    listener.start()
    eventually(lambda: "BROKER_PASSWORD" in caplog.text, 10, "the log names it")
    assert wrong.worker_address.password not in caplog.text
    assert listener.take(5) is None
    listener.close()


def test_hearing_is_prompt(broker: TestBroker, listener: Listener) -> None:
    # Given a slot that waits, over and over
    delays = []
    for _ in range(10):
        taking = Taking(listener, forget=True)
        broker.wait_consumers(QUEUE, 1)
        with broker.channel() as channel:
            began = time.perf_counter()
            channel.basic_publish("", QUEUE, encode(Announcement(task_id=ONE)))
            taking.join(10)
            delays.append(time.perf_counter() - began)
        assert taking.heard == ONE
    # Then no turn of a clock lies between, even on a busy machine: by itself a connection looks around after
    # five seconds
    assert sorted(delays)[5] < 0.8, delays


def test_an_idle_slot_keeps_nothing_of_its_earlier_waits(listener: Listener) -> None:
    # When a slot waits again and again, and nothing comes
    for _ in range(20):
        assert listener.take(0.01) is None
    # Then its channel, which lives as long as the broker does, remembers no subscription
    life = listener._life
    assert life is not None
    channel = life._channel
    assert channel is not None
    eventually(lambda: not channel._cancelled and not channel._consumers, 5, "nothing is kept", every=0.01)
