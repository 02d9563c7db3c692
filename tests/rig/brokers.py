"""A part of a RabbitMQ broker for one test: a virtual host of its own, and what tests do to its queues."""

from __future__ import annotations

import secrets
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pika
from pika.exceptions import ChannelClosedByBroker

from contracts.announcements import BrokerAddress, broker_address, queue_name
from contracts.messages import SlotKind
from tests.rig.parts import Part, worker_url
from tests.rig.polling import PATIENCE, eventually

QUEUES = [queue_name(kind) for kind in SlotKind]


class Queues(ABC):
    """The queues of a broker, whatever it runs on."""

    @abstractmethod
    def channel(self) -> AbstractContextManager[Any]:
        """A channel with all rights."""

    def ready(self, queue: str) -> int:
        """How many messages of ``queue`` nobody has taken; -1 when there is no such queue."""
        with self.channel() as channel:
            try:
                return int(channel.queue_declare(queue, passive=True).method.message_count)
            except ChannelClosedByBroker:
                return -1

    def wait_ready(self, queue: str, count: int, seconds: float = 20.0) -> None:
        """Wait until that many messages are there to be taken."""
        seconds *= PATIENCE
        deadline = time.monotonic() + seconds
        while (seen := self.ready(queue)) != count:
            assert time.monotonic() < deadline, (
                f"{queue} holds {seen} messages after {seconds:g} s, not {count}"
            )
            time.sleep(0.1)

    def wait_announced(self, queue: str, least: int, seconds: float = 20.0) -> None:
        """Wait until at least that many messages are there to be taken.

        There may be more: a broker that is busy or has just lost a node now and then says that a queue is
        empty, and all that should be in it is announced once more.
        """
        eventually(lambda: self.ready(queue) >= least, seconds, f"{queue} holds {least} messages", every=0.2)

    def wait_consumers(self, queue: str, count: int, seconds: float = 20.0) -> None:
        """Wait until that many slots listen."""

        def look() -> bool:
            with self.channel() as channel:
                try:
                    return bool(channel.queue_declare(queue, passive=True).method.consumer_count == count)
                except ChannelClosedByBroker:
                    # There is no such queue yet.
                    return False

        eventually(look, seconds, f"{queue} has {count} listeners", every=0.1)

    def publish(self, queue: str, *bodies: bytes) -> None:
        """Put messages into ``queue``, and be sure that they are there."""
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", queue, body, mandatory=True)

    def take(self, queue: str, count: int = 1) -> list[bytes]:
        """Take messages out for good."""
        with self.channel() as channel:
            return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]

    def delete_queues(self, *queues: str) -> None:
        """As if they had never been declared."""
        with self.channel() as channel:
            for queue in queues:
                channel.queue_delete(queue)


class TestBroker(Queues):
    """One virtual host on a running broker. Queues have the same names in each."""

    __test__ = False

    def __init__(self, part: Part, name: str = "", *, made: bool = True) -> None:
        self.part = part
        self.name = name or f"test-{secrets.token_hex(4)}"
        self.url = self._place(part.url)
        self.worker_url = self._place(worker_url(part))
        if made and self.name != "/":
            self.make()

    @property
    def address(self) -> BrokerAddress:
        """For the private API, who may do everything."""
        return broker_address(self.url)

    @property
    def worker_address(self) -> BrokerAddress:
        """For a consumer, who may only read tasks."""
        return broker_address(self.worker_url)

    def make(self) -> None:
        """Let it exist, for the users that every broker of the tests has."""
        # One call instead of three: each starts an Erlang machine of its own.
        name, reader = f'<<"{self.name}">>', '<<"^tasks[.](cpu|gpu)$">>'
        everything = ", ".join(['<<".*">>'] * 3)
        allow = "rabbit_auth_backend_internal:set_permissions"
        self.control(
            f'rabbit_vhost:add({name}, <<"test">>), {allow}(<<"server">>, {name}, {everything}, <<"test">>), '
            f'{allow}(<<"worker">>, {name}, <<"">>, <<"">>, {reader}, <<"test">>).'
        )

    def control(self, expression: str) -> str:
        """Evaluate an Erlang expression in the broker."""
        return self.part.exec(["rabbitmqctl", "eval", expression])

    def close_connections(self, user: str) -> None:
        """Have the broker close every connection of ``user`` to this virtual host."""
        self.part.exec(["rabbitmqctl", "close_all_user_connections", user, "the test wants it"])

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel with all rights."""
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            yield connection.channel()

    def _place(self, url: str) -> str:
        return url.rsplit("/", 1)[0] + "/" + urllib.parse.quote(self.name, safe="")
