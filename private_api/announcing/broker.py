"""The lasting connection to RabbitMQ: declares the queues, publishes what waits, counts what is ready.

The publisher enters. A ``Life`` is one connection to one node from its opening to its end, in the thread that
runs it. Nothing here tries twice.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ChannelClosedByClient
from pika.spec import Basic, BasicProperties

from contracts.announcements import (
    DEAD_LETTER_QUEUE,
    Announcement,
    BrokerAddress,
    BrokerNode,
    dead_letter_arguments,
    encode,
    queue_arguments,
    queue_name,
)
from contracts.messages import SlotKind
from private_api import metrics
from private_api.announcing.backlog import Backlog, Item
from private_api.announcing.connection import explained, parameters
from private_api.crashpoints import ANNOUNCED, ANNOUNCING, Crashpoints

_log = logging.getLogger(__name__)

# Announcements sent and not confirmed: enough to fill a flush of the broker's disk, few to send once more.
_WINDOW = 256
# A broker that has taken a message and not stored it by then has lost its disk or its majority. A cluster is
# given less time: the majority may be behind another of its nodes, where the message is then offered.
_CONFIRM_SECONDS = 30.0
_CLUSTER_CONFIRM_SECONDS = 10.0
# What the broker refused to store is offered again after this long.
_REFUSED_SECONDS = 1.0
_PROPERTIES = BasicProperties(content_type="application/json", delivery_mode=2)
_NOT_FOUND = 404


class Life:
    """One connection. ``run`` belongs to its thread; ``wake``, ``end`` and ``count_ready`` to any."""

    def __init__(
        self,
        address: BrokerAddress,
        node: BrokerNode,
        backlog: Backlog,
        crashpoints: Crashpoints,
        on_ready: Callable[[], None],
    ) -> None:
        # It writes a traceback for every attempt to reach a broker that is away; we write one line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._address = address
        self._backlog = backlog
        self._crashpoints = crashpoints
        self._on_ready = on_ready
        self._confirm_seconds = _CLUSTER_CONFIRM_SECONDS if address.is_cluster else _CONFIRM_SECONDS
        self._reason = ""
        self._channel: Channel | None = None
        self._holding_back = False
        self._waking = False
        self._timer: Any = None
        self._tag = 0
        self._in_flight: dict[int, tuple[Item, float]] = {}
        self._connection = pika.SelectConnection(
            parameters(address, node),
            on_open_callback=self._opened,
            on_open_error_callback=self._over,
            on_close_callback=self._over,
        )
        self._loop = self._connection.ioloop
        self._queues = [(queue_name(kind), queue_arguments()) for kind in SlotKind]

    def run(self) -> str:
        """Live until the connection ends; returns why. What was not confirmed is in the backlog again."""
        try:
            self._loop.start()
        finally:
            self._channel = None
            self._loop.close()
            self._take_back(list(self._in_flight))
        return self._reason

    def wake(self) -> None:
        """Look into the backlog. Cheap, and never more than one look is outstanding."""
        if not self._waking:
            self._waking = True
            self._loop.add_callback_threadsafe(self._pump)

    def end(self, reason: str) -> None:
        """Close the connection."""
        self._loop.add_callback_threadsafe(partial(self._end, reason))

    def in_flight(self) -> Counter[SlotKind]:
        """How many announcements are sent and not confirmed, by kind."""
        return Counter(item.kind for item, _ in list(self._in_flight.values()))

    def count_ready(self) -> Future[dict[SlotKind, int]]:
        """Ask how many messages of each kind nobody has taken; a connection that ends never answers."""
        answer: Future[dict[SlotKind, int]] = Future()
        self._loop.add_callback_threadsafe(partial(self._count, answer, list(SlotKind), {}))
        return answer

    def _opened(self, connection: pika.SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._hold_back(hold=True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._hold_back(hold=False))
        connection.channel(on_open_callback=self._declare_dead_letters)

    def _declare_dead_letters(self, channel: Channel) -> None:
        # On a channel of its own, since a refusal closes it.
        channel.add_on_close_callback(self._dead_letters_declared)
        channel.queue_declare(
            DEAD_LETTER_QUEUE,
            durable=True,
            arguments=dead_letter_arguments(),
            callback=lambda _answer: channel.close(),
        )

    def _dead_letters_declared(self, _channel: Channel, ending: Exception) -> None:
        if isinstance(ending, ChannelClosedByBroker) and ending.reply_code == _NOT_FOUND:
            # A classic queue lives on one node of a cluster. While that one is away nobody sees the dead
            # letters; the living must not wait for them.
            _log.warning(
                "the broker cannot reach the dead letters: %s", ending.reply_text,
                extra={"action": "dead_letters_away"},
            )  # fmt: skip
        elif not isinstance(ending, ChannelClosedByClient):
            self._end(explained(ending, self._address))
            return
        if self._connection.is_open:
            self._connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        self._declare(channel)

    def _declare(self, channel: Channel, _answer: object = None) -> None:
        if self._queues:
            name, arguments = self._queues.pop(0)
            channel.queue_declare(
                name, durable=True, arguments=arguments, callback=partial(self._declare, channel)
            )
            return
        channel.confirm_delivery(self._confirmed, callback=partial(self._ready, channel))

    def _ready(self, channel: Channel, _answer: object) -> None:
        self._channel = channel
        self._loop.call_later(self._confirm_seconds / 4, self._check_confirms)
        self._on_ready()
        self._pump()

    def _pump(self) -> None:
        # First this: whoever puts something in from now on has to wake us again.
        self._waking = False
        channel = self._channel
        if channel is None or not channel.is_open or self._holding_back:
            return
        while len(self._in_flight) < _WINDOW and (item := self._backlog.take()) is not None:
            self._publish(channel, item)
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        # A full window goes on with the next confirmation.
        if len(self._in_flight) < _WINDOW and (seconds := self._backlog.seconds_until_due()) is not None:
            self._timer = self._loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        self._pump()

    def _publish(self, channel: Channel, item: Item) -> None:
        self._crashpoints.passing(ANNOUNCING)
        self._tag += 1
        self._in_flight[self._tag] = (item, time.monotonic())
        # Without `mandatory` the broker confirms what it has no queue for.
        body = encode(Announcement(task_id=item.task_id))
        channel.basic_publish("", queue_name(item.kind), body, _PROPERTIES, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._in_flight if tag <= method.delivery_tag]
        if isinstance(method, Basic.Nack):
            self._take_back(tags)
            self._hold_back(hold=True)
            self._loop.call_later(_REFUSED_SECONDS, self._refused)
            return
        self._crashpoints.passing(ANNOUNCED)
        for tag in tags:
            sent = self._in_flight.pop(tag, None)
            if sent is not None:
                metrics.ANNOUNCED.labels(sent[0].kind.value).inc()
        self._pump()

    def _take_back(self, tags: list[int]) -> None:
        found = [self._in_flight.pop(tag, None) for tag in tags]
        self._backlog.put_back([sent[0] for sent in found if sent is not None])

    def _refused(self) -> None:
        # A channel that first meets a queue between two leaders asks the dead one as long as it lives: that
        # takes seconds each time, and ends in a refusal. A new channel asks the living.
        if self._address.is_cluster:
            self._break_off("it refuses to store")
        else:
            self._hold_back(hold=False)

    def _hold_back(self, *, hold: bool) -> None:
        self._holding_back = hold
        if not hold:
            self._pump()

    def _returned(self, _channel: Channel, method: Basic.Return, _properties: object, _body: object) -> None:
        # The next life declares it again.
        self._end(f"its queue {method.routing_key} is gone")

    def _check_confirms(self) -> None:
        oldest = next(iter(self._in_flight.values()), None)
        limit = self._confirm_seconds
        if oldest is not None and not self._holding_back and time.monotonic() - oldest[1] > limit:
            self._break_off(f"it has stored nothing for {limit:g} s")
        elif not self._reason:
            self._loop.call_later(limit / 4, self._check_confirms)

    def _count(
        self, answer: Future[dict[SlotKind, int]], kinds: list[SlotKind], counts: dict[SlotKind, int]
    ) -> None:
        if not kinds:
            answer.set_result(counts)
            return
        kind, rest = kinds[0], kinds[1:]

        def counted(frame: Any) -> None:
            counts[kind] = frame.method.message_count
            self._count(answer, rest, counts)

        if self._channel is not None and self._channel.is_open:
            self._channel.queue_declare(queue_name(kind), passive=True, callback=counted)

    def _channel_closed(self, _channel: Channel, error: Exception) -> None:
        self._end(explained(error, self._address))

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _break_off(self, reason: str) -> None:
        """End without a farewell: whoever stores nothing does not answer that in good time either."""
        self._reason = self._reason or reason
        # pika has no public way to do so.
        self._connection._terminate_stream(AMQPError(reason))  # type: ignore[attr-defined]

    def _over(self, _connection: object, error: BaseException) -> None:
        self._reason = self._reason or explained(error, self._address)
        self._loop.stop()
