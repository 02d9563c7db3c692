"""What the doors and the upkeep see of the broker: one call that says that a task waits, and costs nothing.

Without a broker its harmless twin stands here. With one, a second thread catches up: every ten seconds it
counts, per kind, and has announced again what nobody was told of.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from enum import StrEnum
from typing import Protocol

from contracts.announcements import BrokerAddress
from contracts.messages import SlotKind
from private_api.announcing.backlog import Backlog, Item
from private_api.announcing.publisher import Publisher
from private_api.crashpoints import Crashpoints
from private_api.decisions.shortfall import shortfall
from private_api.metrics import ANNOUNCED_AGAIN
from private_api.store.database import AWAY_ERRORS, Database, reason_of
from private_api.store.queues import count_due, first_due, take_turn

_log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 10.0
# Several processes may count; two who did it at once would both announce the same again.
_TURN_SECONDS = 5.0
_DUTY = "announce_again"
# After a broker's return every process first says what it holds in memory, which takes no longer than this.
_SETTLE_SECONDS = 1.0
# How often the catching up sees whether the broker is back.
_LOOK_SECONDS = 0.5
# Between two announcements of tasks that the slot which heard of them last may not run.
_APART_SECONDS = 0.1
# From a task's commit to its announcement.
_MOMENT_SECONDS = 0.2
# For a last announcement and a farewell; what is not said by then the next process says.
_LEAVE_SECONDS = 2.0


class BrokerState(StrEnum):
    """What /readyz says of the broker."""

    OK = "ok"
    AWAY = "away"  # Tasks are accepted all the same, and consumers take them by long poll.
    NONE = "none"  # None is configured.


class Announcer(Protocol):
    """Says that a task waits."""

    def announce(self, kind: SlotKind, task_id: str, delay_seconds: float = 0.0) -> None:
        """Tell the slots of ``kind``, after ``delay_seconds``; returns at once and never fails."""
        ...

    def hold_back(self, kind: SlotKind, task_id: str) -> None:
        """Tell another slot of ``kind`` in a moment: the one that heard may not run the task."""
        ...

    def state(self) -> BrokerState:
        """Whether the broker hears us."""
        ...


class NoAnnouncer:
    """Where there is no broker, the long polls hear of a task by the bell alone."""

    def announce(self, kind: SlotKind, task_id: str, delay_seconds: float = 0.0) -> None:
        """Nobody is told."""

    def hold_back(self, kind: SlotKind, task_id: str) -> None:
        """Nobody is told."""

    def state(self) -> BrokerState:
        """There is none."""
        return BrokerState.NONE


class BrokerAnnouncer:
    """Announces over the broker, and sees to it that none stays unannounced."""

    def __init__(
        self,
        address: BrokerAddress,
        database: Database,
        crashpoints: Crashpoints,
        *,
        stopping: threading.Event,
    ) -> None:
        self._database = database
        self._stopping = stopping
        self._backlog = Backlog()
        self._is_back = threading.Event()
        self._publisher = Publisher(
            address, self._backlog, crashpoints, on_ready=self._is_back.set, stopping=stopping
        )

    def start(self) -> None:
        """Begin to publish and to catch up; ends when the process is told to stop."""
        self._publisher.start()
        threading.Thread(target=self._keep_up, name="catch_up", daemon=True).start()

    def announce(self, kind: SlotKind, task_id: str, delay_seconds: float = 0.0) -> None:
        """Have it published by the other thread. What finds no room in memory is found by catching up."""
        if self._backlog.put(Item(kind, task_id), delay_seconds):
            self._publisher.wake()

    def hold_back(self, kind: SlotKind, task_id: str) -> None:
        """Have it published after a gap, and never more of them than one in each gap.

        While only other slots are free, every announcement of such a task comes back: that must not become a
        busy circle.
        """
        if self._backlog.put_apart(Item(kind, task_id), _APART_SECONDS):
            self._publisher.wake()

    def state(self) -> BrokerState:
        """Whether the publisher has a connection that works, as far as it knows."""
        return BrokerState.OK if self._publisher.is_ready else BrokerState.AWAY

    def catch_up(self) -> int:
        """Have announced again what has no message; returns how many that are."""
        missing = self._missing()
        if missing:
            # Twice, because a task may have been committed and not be announced yet, for a moment.
            self._stopping.wait(_MOMENT_SECONDS)
            missing &= self._missing()
        return sum(self._announce_again(kind, count) for kind, count in missing.items())

    def _missing(self) -> Counter[SlotKind]:
        # In this order: what a claim or a publication changes meanwhile makes the shortfall smaller, and the
        # next pass sees it.
        with self._database.read() as connection:
            queued = {kind: count_due(connection, kind) for kind in SlotKind}
        on_the_way = self._backlog.waiting() + self._publisher.in_flight()
        ready = self._publisher.count_ready()
        if ready is None:
            return Counter()
        return +Counter({
            kind: shortfall(queued=queued[kind], ready=ready[kind], on_the_way=on_the_way[kind])
            for kind in SlotKind
        })  # fmt: skip

    def _announce_again(self, kind: SlotKind, missing: int) -> int:
        with self._database.read() as connection:
            task_ids = first_due(connection, kind, missing)
        for task_id in task_ids:
            self.announce(kind, task_id)
        ANNOUNCED_AGAIN.labels(kind.value).inc(len(task_ids))
        _log.info(
            "%d queued %s tasks are announced again", len(task_ids), kind.value,
            extra={"action": "announced_again"},
        )  # fmt: skip
        return len(task_ids)

    def _keep_up(self) -> None:
        due = time.monotonic() + CATCH_UP_SECONDS
        while not self._stopping.wait(_LOOK_SECONDS):
            if self._is_back.is_set():
                self._is_back.clear()
                due = time.monotonic() + _SETTLE_SECONDS
            if time.monotonic() < due:
                continue
            due = time.monotonic() + CATCH_UP_SECONDS
            try:
                if self._has_turn():
                    self.catch_up()
            except AWAY_ERRORS as error:
                _log.warning("no catching up: %s", reason_of(error), extra={"action": "catch_up_failed"})
            except Exception:  # noqa: BLE001 - This thread must outlive whatever a driver may raise.
                _log.exception("catching up failed", extra={"action": "catch_up_failed"})
        self._publisher.leave(_LEAVE_SECONDS)

    def _has_turn(self) -> bool:
        if not self._publisher.is_ready:
            return False
        with self._database.write() as connection:
            return take_turn(connection, _DUTY, _TURN_SECONDS)
