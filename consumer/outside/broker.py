"""One connection to RabbitMQ, as a slot uses it: the only file of the consumer that imports pika.

The listener enters, and runs each ``Life`` in its thread. A life is subscribed only when told to, and to one
message at most; it hands on what it can read and rejects the rest to the dead letters. It never tries again.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pika
from pika.adapters.utils import connection_workflow
from pika.channel import Channel
from pika.exceptions import (
    AMQPConnectionError,
    AuthenticationError,
    ChannelClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from pika.spec import Basic, BasicProperties

from contracts.announcements import BrokerAddress, BrokerNode, decode
from contracts.messages import MessageError

_log = logging.getLogger(__name__)

# A broker that is frozen, or behind a cut cable, is noticed within three times this.
HEARTBEAT_SECONDS = 10
# Where another node can take its place, it pays to notice sooner, and to give up sooner on reaching one.
_CLUSTER_HEARTBEAT_SECONDS = 5
_PATIENCE_SECONDS = 10.0
_CLUSTER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Heard:
    """An announcement that this slot holds until it says what became of it."""

    task_id: str
    life: Life
    delivery_tag: int


class Life:
    """One connection. ``run`` belongs to its thread; the other methods without an underscore to any."""

    def __init__(
        self,
        address: BrokerAddress,
        node: BrokerNode,
        queue: str,
        name: str,
        *,
        on_ready: Callable[[Life], None],
        on_heard: Callable[[Heard], bool],
    ) -> None:
        # It writes a traceback for every attempt to reach a broker that is away; we write one line.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        self._address = address
        self._queue = queue
        self._on_ready = on_ready
        self._on_heard = on_heard
        self._reason = ""
        self._channel: Channel | None = None
        self._subscription: str | None = None
        self._connection = pika.SelectConnection(
            _parameters(address, node, name),
            on_open_callback=self._opened,
            on_open_error_callback=self._over,
            on_close_callback=self._over,
        )
        self._loop = self._connection.ioloop

    def run(self) -> str:
        """Live until the connection ends; returns why."""
        try:
            self._loop.start()
        finally:
            self._channel = None
            self._loop.close()
        return self._reason

    def subscribe(self) -> None:
        """Have the next message delivered."""
        self._loop.add_callback_threadsafe(self._subscribe)

    def unsubscribe(self) -> None:
        """Have none delivered; one that is on its way goes back."""
        self._loop.add_callback_threadsafe(self._unsubscribe)

    def settle(self, delivery_tag: int, *, requeue: bool) -> None:
        """Be done with a message. When the connection has ended, the broker knows that by itself."""
        self._loop.add_callback_threadsafe(partial(self._settle, delivery_tag, requeue=requeue))

    def end(self, reason: str) -> None:
        """Close the connection."""
        self._loop.add_callback_threadsafe(partial(self._end, reason))

    def _opened(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(self._canceled)
        channel.basic_qos(prefetch_count=1, callback=lambda _answer: self._look(channel))

    def _look(self, channel: Channel) -> None:
        # A queue that is missing closes the channel: whoever waits for this life waits on by long poll.
        channel.queue_declare(self._queue, passive=True, callback=lambda _answer: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        self._channel = channel
        self._on_ready(self)

    def _subscribe(self) -> None:
        if self._subscription is None and (channel := self._usable_channel()) is not None:
            self._subscription = channel.basic_consume(self._queue, self._delivered)

    def _unsubscribe(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and (channel := self._usable_channel()) is not None:
            # Nobody waits for the answer, but until it comes pika remembers the subscription: without one for
            # as long as the channel lives, which an idle slot's does for months.
            channel.basic_cancel(subscription, callback=_unsubscribed)

    def _delivered(
        self, channel: Channel, method: Basic.Deliver, _properties: BasicProperties, body: bytes
    ) -> None:
        tag = int(method.delivery_tag or 0)
        try:
            announcement = decode(body)
        except MessageError as error:
            # Still subscribed: the next one may be readable.
            channel.basic_reject(tag, requeue=False)
            _log.warning("to the dead letters: %s", error, extra={"action": "announcement_unreadable"})
            return
        # Before anything is said about this message: else the broker sends the next one after it.
        self._unsubscribe()
        if not self._on_heard(Heard(announcement.task_id, self, tag)):
            channel.basic_nack(tag, requeue=True)

    def _settle(self, delivery_tag: int, *, requeue: bool) -> None:
        channel = self._usable_channel()
        if channel is None:
            return
        if requeue:
            channel.basic_nack(delivery_tag, requeue=True)
        else:
            channel.basic_ack(delivery_tag)

    def _usable_channel(self) -> Channel | None:
        return self._channel if self._channel is not None and self._channel.is_open else None

    def _canceled(self, _frame: object) -> None:
        self._end(f"its queue {self._queue} is gone")

    def _channel_closed(self, _channel: Channel, error: Exception) -> None:
        # Nothing else would tell: a connection lives on happily without its channel.
        self._end(_explained(error, self._address))

    def _end(self, reason: str) -> None:
        self._reason = self._reason or reason
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _over(self, _connection: object, error: BaseException) -> None:
        self._reason = self._reason or _explained(error, self._address)
        self._loop.stop()


def _unsubscribed(_answer: object) -> None:
    """There is nothing to do."""


def _parameters(address: BrokerAddress, node: BrokerNode, name: str) -> pika.ConnectionParameters:
    patience_seconds = _CLUSTER_PATIENCE_SECONDS if address.is_cluster else _PATIENCE_SECONDS
    return pika.ConnectionParameters(
        host=node.host,
        port=node.port,
        virtual_host=address.virtual_host,
        credentials=pika.PlainCredentials(address.user, address.password),
        ssl_options=pika.SSLOptions(ssl.create_default_context(), node.host) if address.tls else None,
        socket_timeout=patience_seconds,
        stack_timeout=patience_seconds,
        heartbeat=_CLUSTER_HEARTBEAT_SECONDS if address.is_cluster else HEARTBEAT_SECONDS,
        client_properties={"connection_name": name},
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
    inner: Any = None
    if isinstance(error, connection_workflow.AMQPConnectionWorkflowFailed):
        inner = error.exceptions[-1]
    elif isinstance(error, connection_workflow.AMQPConnectorPhaseErrorBase):
        inner = error.exception
    elif isinstance(error, AMQPConnectionError) and error.args:
        inner = error.args[0]
    return _innermost(inner) if isinstance(inner, BaseException) else error
