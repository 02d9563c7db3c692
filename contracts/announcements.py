"""What the private API and the consumers must agree on about the broker: queues, and the message in them.

An announcement says that there is work of one kind, nothing more: the claim decides what runs. Losing one
loses no task, and hearing one twice runs nothing twice. The private API alone declares the queues; a consumer
may only read from the one of its kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from contracts.messages import MessageError, SlotKind
from contracts.names import is_task_id

VERSION = 1
# What no consumer can read ends here, where an operator sees it.
DEAD_LETTER_QUEUE = "tasks.dead"
# An announcement has 64 bytes; whatever is far larger was sent by somebody else.
MAX_BYTES = 4096
# More garbage than this is not worth keeping: the oldest goes first.
_DEAD_LETTERS_KEPT = 10_000
_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """One task waits. ``task_id`` is a hint, and leads through the logs."""

    task_id: str


def queue_name(kind: SlotKind) -> str:
    """The queue for one kind of slot, so that a GPU task never sits before a CPU slot."""
    return f"tasks.{kind.value}"


def queue_arguments() -> dict[str, Any]:
    """The arguments of a task queue. They never change: a queue that exists refuses others (406)."""
    return {
        "x-queue-type": "quorum",
        # The default exchange, which leads to the queue of that name.
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    }


def dead_letter_arguments() -> dict[str, Any]:
    """The arguments of the dead letters' queue: a classic one, where looking costs a message nothing."""
    return {"x-queue-type": "classic", "x-max-length": _DEAD_LETTERS_KEPT}


def encode(announcement: Announcement) -> bytes:
    """The message's body."""
    return json.dumps({"version": VERSION, "task_id": announcement.task_id}).encode()


def decode(body: bytes) -> Announcement:
    """Read a message's body; raises ``MessageError`` that says what is wrong with it.

    Fields that are not known are ignored, so that either side may be upgraded first; another version is
    refused, since it may mean anything.
    """
    if len(body) > MAX_BYTES:
        raise MessageError(f"an announcement has at most {MAX_BYTES} bytes, not {len(body)}")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MessageError("the announcement is not JSON") from error
    if not isinstance(value, dict):
        raise MessageError("the announcement must be an object")
    version, task_id = value.get("version"), value.get("task_id")
    # True is 1 to Python.
    if version != VERSION or not isinstance(version, int) or isinstance(version, bool):
        raise MessageError(f"version must be {VERSION}, not {str(version)[:20]!r}")
    if not isinstance(task_id, str) or not is_task_id(task_id):
        raise MessageError("task_id must be a task's id")
    return Announcement(task_id=task_id)


@dataclass(frozen=True)
class BrokerNode:
    """One machine of a broker, and the port at which it listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where the broker is, and who we are to it. It has one node, or several that are one cluster."""

    nodes: tuple[BrokerNode, ...]
    user: str
    password: str = field(repr=False)
    virtual_host: str
    tls: bool

    @property
    def is_cluster(self) -> bool:
        """Whether there is another node to turn to when one is away."""
        return len(self.nodes) > 1

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        nodes = ",".join(map(str, self.nodes))
        return f"{scheme}://{self.user}@{nodes} (virtual host {self.virtual_host!r})"


def broker_address(url: str, password: str = "") -> BrokerAddress:
    """Read ``amqp[s]://user@host[:port][,host[:port]...]/vhost``; ``password`` replaces one in it.

    Raises ``ValueError`` with a sentence that never holds the password.
    """
    wanted = "must look like amqp://user@host:5672/%2F"
    try:
        parts = urlsplit(url)
    except ValueError:
        # urllib's own words quote what may hold a password.
        raise ValueError(wanted) from None
    if parts.scheme not in _PORTS:
        raise ValueError(wanted)
    nodes = tuple(
        _node(place, _PORTS[parts.scheme], wanted) for place in parts.netloc.rpartition("@")[2].split(",")
    )
    if len(set(nodes)) < len(nodes):
        raise ValueError(f"{wanted}; it names a host twice")
    if not parts.username:
        raise ValueError(f"{wanted}; it names no user")
    if "/" in parts.path[1:] or parts.query or parts.fragment:
        raise ValueError(f"{wanted}; behind the host stands the virtual host alone, with %2F for /")
    return BrokerAddress(
        nodes=nodes,
        user=unquote(parts.username),
        password=password or unquote(parts.password or ""),
        virtual_host=unquote(parts.path[1:]) or "/",
        tls=parts.scheme == "amqps",
    )


def _node(place: str, default_port: int, wanted: str) -> BrokerNode:
    try:
        parts = urlsplit(f"//{place}")
        port = parts.port
    except ValueError:
        raise ValueError(f"{wanted}, with a port from 1 to 65535") from None
    if not parts.hostname or any(character.isspace() for character in parts.hostname):
        raise ValueError(f"{wanted}; several hosts are separated by commas, and none of them is empty")
    return BrokerNode(parts.hostname, port or default_port)
