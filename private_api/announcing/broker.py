"""Everything that this service says to RabbitMQ: the only file that imports pika.

A ``Life`` is one connection from its opening to its end, in the thread that runs it: it declares the queues,
publishes what waits in the backlog, and counts what is ready. ``visit`` is a short connection of its own, for
an operator's questions. Nothing here tries twice.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils import connection_workflow
from pika.channel import Channel
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from pika.spec import Basic, BasicProperties

from contracts.announcements import (
    DEAD_LETTER_QUEUE,
    Announcement,
    BrokerAddress,
    dead_letter_arguments,
    encode,
    queue_arguments,
    queue_name,
)
from contracts.messages import SlotKind
from private_api import metrics
from private_api.announcing.backlog import Backlog, Item
from private_api.crashpoints import ANNOUNCED, ANNOUNCING, Crashpoints

# Announcements sent and not confirmed: enough to fill a flush of the broker's disk, few to send once more.
_WINDOW = 256
# A broker that has taken a message and not stored it by then has lost its disk or its majority.
_CONFIRM_SECONDS = 30.0
# What the broker refused to store is offered again after this long.
_REFUSED_SECONDS = 1.0
_PROPERTIES = BasicProperties(content_type="application/json", delivery_mode=2)


class BrokerAwayError(Exception):
    """The broker cannot be reached, or broke off; the message says what to do about it."""


class Life:
    """One connection. ``run`` belongs to its thread; ``wake``, ``end`` and ``count_ready`` to any."""

    def __init__(
        self, address: BrokerAddress, backlog: Backlog, crashpoints: Crashpoints, on_ready: Callable[[], None]
    ) -> None:
        # It writes a traceback for every attempt to reach a broker that is away; we write one line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._address = address
        self._backlog = backlog
        self._crashpoints = crashpoints
        self._on_ready = on_ready
        self._reason = ""
        self._channel: Channel | None = None
        self._holding_back = False
        self._waking = False
        self._timer: Any = None
        self._tag = 0
        self._in_flight: dict[int, tuple[Item, float]] = {}
        self._connection = pika.SelectConnection(
            _parameters(address),
            on_open_callback=self._opened,
            on_open_error_callback=self._over,
            on_close_callback=self._over,
        )
        self._loop = self._connection.ioloop
        self._queues = [(queue_name(kind), queue_arguments()) for kind in SlotKind]
        self._queues.append((DEAD_LETTER_QUEUE, dead_letter_arguments()))

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
        connection.channel(on_open_callback=self._channel_opened)

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
        self._loop.call_later(_CONFIRM_SECONDS / 4, self._check_confirms)
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
            self._loop.call_later(_REFUSED_SECONDS, partial(self._hold_back, hold=False))
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

    def _hold_back(self, *, hold: bool) -> None:
        self._holding_back = hold
        if not hold:
            self._pump()

    def _returned(self, _channel: Channel, method: Basic.Return, _properties: object, _body: object) -> None:
        # The next life declares it again.
        self._end(f"its queue {method.routing_key} is gone")

    def _check_confirms(self) -> None:
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is not None and not self._holding_back and time.monotonic() - oldest[1] > _CONFIRM_SECONDS:
            self._end(f"it has stored nothing for {_CONFIRM_SECONDS:g} s")
        elif not self._reason:
            self._loop.call_later(_CONFIRM_SECONDS / 4, self._check_confirms)

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
        self._end(_explained(error, self._address))

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _over(self, _connection: object, error: BaseException) -> None:
        self._reason = self._reason or _explained(error, self._address)
        self._loop.stop()


@contextmanager
def visit(address: BrokerAddress) -> Iterator[BlockingChannel]:
    """A channel on a connection of its own, closed at the end; raises ``BrokerAwayError``."""
    try:
        with pika.BlockingConnection(_parameters(address, patience_seconds=5.0)) as connection:
            yield connection.channel()
    except (AMQPError, connection_workflow.AMQPConnectorException, OSError) as error:
        raise BrokerAwayError(_explained(error, address)) from error


def _parameters(address: BrokerAddress, patience_seconds: float = 10.0) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=pika.PlainCredentials(address.user, address.password),
        ssl_options=pika.SSLOptions(ssl.create_default_context(), address.host) if address.tls else None,
        socket_timeout=patience_seconds,
        stack_timeout=patience_seconds,
        # A broker that is frozen, or behind a cut cable, is noticed within three times this.
        heartbeat=10,
        # One whose disk or memory is full says so, and reads nothing more from us.
        blocked_connection_timeout=60.0,
        client_properties={"connection_name": "private_api"},
    )


def _explained(error: BaseException, address: BrokerAddress) -> str:
    cause = _innermost(error)
    if isinstance(cause, ProbableAuthenticationError | AuthenticationError):
        return f"it refuses the user {address.user!r} or its password (BROKER_URL, BROKER_PASSWORD)"
    if isinstance(cause, ProbableAccessDeniedError):
        where = f"virtual host {address.virtual_host!r}"
        return f"it has no {where}, or {address.user!r} may not use it (BROKER_URL)"
    if isinstance(cause, IncompatibleProtocolError):
        # pika's guess; a port that forwards to nobody does the same.
        return "it broke off before it said a word"
    if isinstance(cause, ChannelClosedByBroker):
        return f"it refuses: {cause.reply_code} {cause.reply_text}"
    return str(cause) or type(cause).__name__


def _innermost(error: BaseException) -> BaseException:
    """What lies inside the wrappings of a failed attempt to connect."""
    inner: object = None
    if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
        inner = error.exceptions[-1]
    elif isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
        inner = error.exception
    elif isinstance(error, AMQPConnectionError) and error.args:
        inner = error.args[0]
    return _innermost(inner) if isinstance(inner, BaseException) else error
