"""What a slot hears of waiting tasks over the broker: asked with ``take``, settled with the claim's answer.

The slot enters. A thread of its own keeps the connection for as long as the slot lives: heartbeats go on
while a model runs, and a broker that was away is reached again behind the slot's back. The slot is subscribed
only while it waits, so that a busy one holds nothing that another could take.
"""

from __future__ import annotations

import logging
import time
from threading import Condition, Thread

from consumer.metrics import show_broker
from consumer.outside.backoff import delays
from consumer.outside.broker import Heard, Life
from contracts.announcements import BrokerAddress, BrokerNode
from contracts.broker_round import BrokerRound

_log = logging.getLogger(__name__)

# While the broker is away for one and the same reason, the log says so this often.
_REMINDER_SECONDS = 60.0
# A broker that goes, or comes, is away for several reasons within moments: the first is enough.
_CHANGE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 10.0
# For a farewell; a connection that breaks off gives its message back all the same.
_LEAVE_SECONDS = 2.0


class Listener:
    """Hears of one queue; ``name`` is what the broker shows of us."""

    def __init__(self, address: BrokerAddress, queue: str, name: str) -> None:
        self._address = address
        self._round = BrokerRound(address)
        self._queue = queue
        self._name = name
        # Guards what follows. The connection's thread tells, the slot's thread waits.
        self._changed = Condition()
        self._life: Life | None = None
        self._wanted = False
        self._heard: Heard | None = None
        self._leaving = False
        self._ready_since = 0.0
        self._last_said = ("", 0.0)
        self._said_of_nodes: dict[BrokerNode, tuple[str, float]] = {}
        self._thread = Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Begin to reach the broker."""
        self._thread.start()

    def leave(self) -> None:
        """Wake whoever waits, take nothing more, and say farewell. From any thread, more than once."""
        with self._changed:
            self._leaving = True
            life = self._life
            self._changed.notify_all()
        if life is not None:
            life.end("we leave")

    def close(self) -> None:
        """Leave, and wait for the connection's end."""
        self.leave()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_SECONDS)

    @property
    def is_reachable(self) -> bool:
        """Whether ``take`` would hear anything, as far as anybody knows."""
        with self._changed:
            return self._life is not None and not self._leaving

    def take(self, seconds: float) -> Heard | None:
        """Subscribe until an announcement comes, and no longer than ``seconds``.

        None when none came, when the broker went away meanwhile, or when we leave.
        """
        with self._changed:
            life = self._life
            if life is None or self._leaving:
                return None
            self._wanted = True
            life.subscribe()
            self._changed.wait_for(
                lambda: self._heard is not None or self._life is not life or self._leaving, seconds
            )
            self._wanted = False
            heard, self._heard = self._heard, None
        if heard is None:
            life.unsubscribe()
        return heard

    def forget(self, heard: Heard) -> None:
        """The claim was answered: the announcement has done its work."""
        heard.life.settle(heard.delivery_tag, requeue=False)

    def give_back(self, heard: Heard) -> None:
        """Nobody could be asked: let another slot hear it."""
        heard.life.settle(heard.delivery_tag, requeue=True)

    def _run(self) -> None:
        pauses = delays(0.2, _LONGEST_PAUSE_SECONDS)
        while not self._leaving:
            node = self._round.node
            was_ready, reason = self._live()
            if was_ready:
                pauses = delays(0.2, _LONGEST_PAUSE_SECONDS)
            away = self._round.ended(reason, time.monotonic() - self._ready_since if was_ready else 0.0)
            if self._leaving:
                return
            if away is None:
                self._say_node(node, reason)
                continue
            self._say(away)
            with self._changed:
                self._changed.wait_for(lambda: self._leaving, next(pauses))

    def _live(self) -> tuple[bool, str]:
        try:
            life = Life(
                self._address,
                self._round.node,
                self._queue,
                self._name,
                on_ready=self._ready,
                on_heard=self._hear,
            )
            reason = life.run()
        except Exception as error:  # noqa: BLE001 - This thread must outlive whatever the library may raise.
            _log.exception("the listener failed", extra={"action": "listener_failed"})
            reason = type(error).__name__
        show_broker(reached=False)
        with self._changed:
            was_ready, self._life = self._life is not None, None
            self._changed.notify_all()
        return was_ready, reason

    def _ready(self, life: Life) -> None:
        way = f", by way of {self._round.node}" if self._address.is_cluster else ""
        _log.info("tasks are heard of at %s%s", self._address, way, extra={"action": "broker_ready"})
        show_broker(reached=True)
        with self._changed:
            self._life, self._ready_since = life, time.monotonic()
            self._last_said = ("", 0.0)
            leaving = self._leaving
        if leaving:
            life.end("we leave")

    def _hear(self, heard: Heard) -> bool:
        with self._changed:
            if not self._wanted or self._leaving:
                return False
            self._heard, self._wanted = heard, False
            self._changed.notify_all()
            return True

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
            "the broker at %s is away: %s. Waiting for tasks by long poll; trying again.",
            self._address,
            reason,
            extra={"action": "broker_away"},
        )
