"""The one thread that publishes: a life with the broker after the other, for ever, with growing pauses.

The announcer enters. Nobody waits for it; what it has not published yet waits in the backlog.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError

from contracts.announcements import BrokerAddress, BrokerNode
from contracts.broker_round import BrokerRound
from contracts.messages import SlotKind
from private_api.announcing.backlog import Backlog
from private_api.announcing.broker import Life
from private_api.crashpoints import Crashpoints

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
# While the broker is away for one and the same reason, the log says so this often.
_REMINDER_SECONDS = 60.0
# A broker that goes, or comes, is away for several reasons within moments: the first is enough.
_CHANGE_SECONDS = 5.0
# A broker counts its messages in a millisecond; one that does not answer is asked again another time.
_COUNT_SECONDS = 5.0


class Publisher:
    """Keeps a connection to the broker, and publishes whatever comes into ``backlog``."""

    def __init__(
        self,
        address: BrokerAddress,
        backlog: Backlog,
        crashpoints: Crashpoints,
        *,
        on_ready: Callable[[], None],
        stopping: threading.Event,
    ) -> None:
        self._address = address
        self._round = BrokerRound(address)
        self._backlog = backlog
        self._crashpoints = crashpoints
        self._on_ready = on_ready
        self._stopping = stopping
        self._life: Life | None = None
        self._is_ready = False
        self._ready_since = 0.0
        self._last_said = ("", 0.0)
        self._said_of_nodes: dict[BrokerNode, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether the broker takes announcements now, as far as anybody knows."""
        return self._is_ready

    def start(self) -> None:
        """Begin; ends when the process is told to stop, once ``leave`` is called."""
        self._thread.start()

    def leave(self, seconds: float) -> None:
        """Close the connection, and wait so long for it at most. Only after the process was told to stop."""
        life = self._life
        if life is not None:
            life.end("we leave")
        self._thread.join(seconds)

    def wake(self) -> None:
        """Say that something is in the backlog."""
        life = self._life
        if life is not None:
            life.wake()

    def in_flight(self) -> Counter[SlotKind]:
        """How many announcements are sent and not confirmed, by kind."""
        life = self._life
        return Counter() if life is None else life.in_flight()

    def count_ready(self) -> dict[SlotKind, int] | None:
        """How many messages of each kind nobody has taken; null while the broker does not answer."""
        life = self._life
        if life is None or not self._is_ready:
            return None
        try:
            return life.count_ready().result(_COUNT_SECONDS)
        except FutureTimeoutError:
            return None

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            node = self._round.node
            was_ready, reason = self._live()
            if was_ready:
                pause = _FIRST_PAUSE_SECONDS
            away = self._round.ended(reason, time.monotonic() - self._ready_since if was_ready else 0.0)
            if self._stopping.is_set():
                return
            if away is None:
                self._say_node(node, reason)
                continue
            self._say(away)
            # Shortened by up to a half, so that several processes do not come back in step.
            self._stopping.wait(pause * (1 - random.random() / 2))  # noqa: S311 - It protects nothing.
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _live(self) -> tuple[bool, str]:
        try:
            life = self._life = Life(
                self._address, self._round.node, self._backlog, self._crashpoints, self._ready
            )
            reason = life.run()
        except Exception as error:  # noqa: BLE001 - This thread must outlive whatever the library may raise.
            _log.exception("the publisher failed", extra={"action": "publisher_failed"})
            reason = type(error).__name__
        was_ready, self._is_ready, self._life = self._is_ready, False, None
        return was_ready, reason

    def _ready(self) -> None:
        self._is_ready, self._ready_since = True, time.monotonic()
        self._last_said = ("", 0.0)
        way = f", by way of {self._round.node}" if self._address.is_cluster else ""
        _log.info("tasks are announced at %s%s", self._address, way, extra={"action": "broker_ready"})
        self._on_ready()

    def _say_node(self, node: BrokerNode, reason: str) -> None:
        said, when = self._said_of_nodes.get(node, ("", 0.0))
        if reason == said and time.monotonic() - when < _REMINDER_SECONDS:
            return
        self._said_of_nodes[node] = (reason, time.monotonic())
        _log.warning(
            "the broker's node %s is away: %s. Trying the next one.", node, reason,
            extra={"action": "broker_node_away"},
        )  # fmt: skip

    def _say(self, reason: str) -> None:
        said, when = self._last_said
        silence = _REMINDER_SECONDS if reason == said else _CHANGE_SECONDS
        if said and time.monotonic() - when < silence:
            return
        self._last_said = (reason, time.monotonic())
        _log.warning(
            "the broker at %s is away: %s. Tasks are accepted and run all the same; trying again.",
            self._address,
            reason,
            extra={"action": "broker_away"},
        )
