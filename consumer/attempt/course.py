"""How far an attempt has got: the one loop that takes events off its queue, and what they come to.

The attempt's own thread enters (``run``, ``ending``, ``conclusion``), and nobody else; other threads only
``emit``. The first cause to stop counts; a lost lease ends everything.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event as Flag
from typing import Any

from consumer.attempt import events
from consumer.attempt.heartbeat import HeartbeatLoop
from consumer.attempt.verdict import Facts, Stop
from consumer.metrics import Cache, count_lookup
from consumer.node.images import resolved
from consumer.node.settings import Settings
from consumer.outside.errors import AbandonedError
from contracts.messages import Heartbeat, HeartbeatAnswer, Lease
from contracts.reasons import ReasonCode
from contracts.states import Phase

_log = logging.getLogger(__name__)

# What a producer reports too late once the container has ended by itself.
_ONLY_WHILE_RUNNING = {Stop.TIMED_OUT, Stop.OUTPUT_TOO_LARGE, Stop.NODE_FULL, Stop.ENGINE_LOST}


class Course:
    """What has happened in an attempt so far. ``abandoned`` is set once nothing of it is wanted any more."""

    def __init__(
        self,
        lease: Lease,
        settings: Settings,
        beat: Callable[[Lease, Heartbeat], HeartbeatAnswer],
        said: dict[str, Any],
    ) -> None:
        self.abandoned = Flag()
        self.facts = Facts(lease=lease)
        self.input_ready = False
        self.created: events.ContainerReady | None = None
        self.delivered: events.Delivered | None = None
        # Seconds spent by phase.
        self.durations: dict[str, float] = {}
        self.heartbeat = HeartbeatLoop(lease, beat, self.emit)
        self.said = said
        self._lease = lease
        self._limits = {
            Phase.FETCHING: settings.fetch_seconds,
            Phase.PULLING: settings.pull_seconds,
            # The model's own limit is the watch's business.
            Phase.RUNNING: math.inf,
            Phase.UPLOADING: settings.upload_seconds,
        }
        self._queue: SimpleQueue[events.Event] = SimpleQueue()
        self._phase = Phase.FETCHING
        self._phase_began = self._noted_at = time.monotonic()

    def emit(self, event: events.Event) -> None:
        """Put an event on the queue, from any thread."""
        self._queue.put(event)

    def wait_for(self, arrived: Callable[[], bool]) -> bool:
        """Take events until ``arrived()``, false when the attempt is stopped or its phase takes too long."""
        while self.facts.stop is None and not arrived():
            left = self._limits[self._phase] - self._phase_seconds()
            if left <= 0:
                sentence = (
                    f"The task was {self._phase.value} for longer than the node allows; it is tried again."
                )
                self.take(events.Prevented(code=ReasonCode.PHASE_TIMED_OUT, sentence=sentence))
            else:
                self.take_next(left)
        return self.facts.stop is None

    def give_way(self, seconds: float) -> bool:
        """Take events for so long; raises ``AbandonedError`` once the lease is lost, otherwise false."""
        deadline = time.monotonic() + seconds
        while True:
            self.take_next(deadline - time.monotonic())
            if self.facts.stop is Stop.LEASE_LOST:
                raise AbandonedError("the lease is lost")
            if time.monotonic() >= deadline:
                return False

    def take_next(self, seconds: float) -> None:
        """Take the next event, waiting so long for it at most."""
        try:
            # The queue's longest wait is bounded by the platform.
            event = self._queue.get(timeout=min(max(seconds, 0.0), 3600.0))
        except Empty:
            return
        self.take(event)

    def take(self, event: events.Event) -> None:
        """Note what an event means; it need not have been on the queue."""
        match event:
            case events.InputReady():
                self.input_ready = True
            case events.PullStarted():
                self.enter(Phase.PULLING)
            case events.ImageResolved(image=image):
                count_lookup(Cache.IMAGE, hit=self._phase is not Phase.PULLING)
                self.heartbeat.resolve(resolved(image, self._lease.image.tag))
                if self._phase is Phase.PULLING:
                    self.enter(Phase.FETCHING)
            case events.ContainerReady():
                self.created = event
            case events.Exited(exit_code=exit_code):
                self.facts = replace(self.facts, exit_code=exit_code)
            case events.Delivered():
                self.delivered = event
            case events.Prevented(code=code, sentence=sentence):
                self._stop(Stop.PREVENTED, sentence, code)
            case events.Stopped(stop=stop, detail=detail):
                self._stop(stop, detail)

    def look_back(
        self, *, oom_killed: bool, last_line: str = "", found: events.Stopped | None = None
    ) -> None:
        """Note what an ended container tells.

        ``found`` counts although the container has ended by itself: it is no late report but what was looked
        for then.
        """
        self.facts = replace(self.facts, oom_killed=oom_killed, last_line=last_line)
        if found is not None and self.facts.stop is None:
            self._set(found.stop, found.detail)

    def _stop(self, stop: Stop, detail: str, code: ReasonCode | None = None) -> None:
        """The first cause counts, except that a lost lease ends everything."""
        ended = self.facts.exit_code is not None
        if stop is not Stop.LEASE_LOST and (
            self.facts.stop is not None or (ended and stop in _ONLY_WHILE_RUNNING)
        ):
            return
        self._set(stop, detail, code)

    def _set(self, stop: Stop, detail: str, code: ReasonCode | None = None) -> None:
        _log.info("attempt stopped: %s", stop.name, extra=self.said | {"action": "attempt_stopped"})
        self.facts = replace(self.facts, stop=stop, detail=detail, prevented_code=code)
        self.abandoned.set()

    def enter(self, phase: Phase, *, urgent: bool = True) -> None:
        """The next phase begins; ``urgent``: the server is to hear of it at once."""
        self.note_duration()
        self._phase, self._phase_began = phase, time.monotonic()
        self.heartbeat.enter(phase, urgent=urgent)

    def note_duration(self) -> None:
        """Add what the current phase has taken so far."""
        name, now = self._phase.value, time.monotonic()
        self.durations[name] = self.durations.get(name, 0.0) + now - self._noted_at
        self._noted_at = now

    def _phase_seconds(self) -> float:
        return time.monotonic() - self._phase_began
