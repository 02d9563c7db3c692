"""How RabbitMQ is reached, and what its refusals mean; together with ``broker`` all that imports pika here.

``visit`` is a short connection of its own, for an operator's questions.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils import connection_workflow
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from contracts.announcements import BrokerAddress, BrokerNode
from contracts.broker_round import BrokerRound

# For reaching a broker. One node of several is given up sooner, since another may be there.
_PATIENCE_SECONDS = 10.0
_CLUSTER_PATIENCE_SECONDS = 5.0
# A broker that is frozen, or behind a cut cable, is noticed within three times this.
_HEARTBEAT_SECONDS = 10
_CLUSTER_HEARTBEAT_SECONDS = 5
# What pika raises when a broker cannot be reached, or breaks off.
_AWAY = (AMQPError, connection_workflow.AMQPConnectorException, OSError)


class BrokerAwayError(Exception):
    """The broker cannot be reached, or broke off; the message says what to do about it."""


@contextmanager
def visit(address: BrokerAddress) -> Iterator[BlockingChannel]:
    """A channel on a connection of its own, closed at the end; raises ``BrokerAwayError``."""
    try:
        with _connected(address) as connection:
            yield connection.channel()
    except _AWAY as error:
        raise BrokerAwayError(explained(error, address)) from error


def _connected(address: BrokerAddress) -> pika.BlockingConnection:
    turn = BrokerRound(address)
    while True:
        try:
            return pika.BlockingConnection(parameters(address, turn.node, patience_seconds=5.0))
        except _AWAY as error:
            reason = turn.ended(explained(error, address), 0.0)
            if reason is not None:
                raise BrokerAwayError(reason) from error


def parameters(
    address: BrokerAddress, node: BrokerNode, patience_seconds: float | None = None
) -> pika.ConnectionParameters:
    """How pika reaches one node."""
    if patience_seconds is None:
        patience_seconds = _CLUSTER_PATIENCE_SECONDS if address.is_cluster else _PATIENCE_SECONDS
    return pika.ConnectionParameters(
        host=node.host,
        port=node.port,
        virtual_host=address.virtual_host,
        credentials=pika.PlainCredentials(address.user, address.password),
        ssl_options=pika.SSLOptions(ssl.create_default_context(), node.host) if address.tls else None,
        socket_timeout=patience_seconds,
        stack_timeout=patience_seconds,
        heartbeat=_CLUSTER_HEARTBEAT_SECONDS if address.is_cluster else _HEARTBEAT_SECONDS,
        # One whose disk or memory is full says so, and reads nothing more from us.
        blocked_connection_timeout=60.0,
        client_properties={"connection_name": "private_api"},
    )


def explained(error: BaseException, address: BrokerAddress) -> str:
    """What one of pika's exceptions says to an operator, without the password."""
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
