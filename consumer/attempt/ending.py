"""Ending a container that must not go on, and looking back at one that has ended.

An attempt enters once its container has run. Why we end it is on the disk before the first signal leaves, so
that a next life of the slot does not take our signal for the model's failure, or for the machine's.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from consumer.attempt import events
from consumer.attempt.course import Course
from consumer.attempt.verdict import Facts, Stop, last_line
from consumer.attempt.watch import output_excess
from consumer.node.record import Ending
from consumer.node.station import Station
from consumer.node.usage import disk_shortage, exhaustion
from consumer.node.workspace import Workspace
from consumer.outside.errors import EngineError
from contracts.messages import Lease
from contracts.reasons import ReasonCode

_log = logging.getLogger(__name__)

# A model that is canceled may tidy up this long; one that passed a limit is killed at once.
GRACE_SECONDS = 2.0
# A killed container that does not end within this time is in the hands of a broken engine or kernel.
KILL_SECONDS = 30.0
# The exit code of what was killed, and how long it may take until the engine has heard that it was for its
# memory: two different events, which a busy machine sees in any order. Of one in some thirty it never hears.
_KILLED, _OOM_SECONDS, _OOM_LOOK_SECONDS = 137, 1.0, 0.05
# The program's last words are among these; the engine's init may speak after it.
_LAST_LINES = 5


@dataclass(frozen=True, kw_only=True)
class ContainerEnd:
    """The end of one attempt's container."""

    station: Station
    lease: Lease
    workspace: Workspace
    course: Course
    container_id: str
    # What the kernel had counted when the attempt began.
    memory_kills_before: int

    def bring_about(self) -> None:
        """Make it end if it has not; where no exit is seen in the end, it may still run."""
        if self.course.facts.exit_code is not None or self.course.facts.stop is Stop.ENGINE_LOST:
            return
        ending = ending_of(self.course.facts)
        if ending is not None:
            self.station.record.note_ending(ending)
        graceful = self.course.facts.stop in {Stop.CANCELED, Stop.DRAINED}
        for signal, seconds in [("SIGTERM", GRACE_SECONDS)] * graceful + [("SIGKILL", KILL_SECONDS)]:
            self._signal(signal)
            deadline = time.monotonic() + seconds
            while self.course.facts.exit_code is None and time.monotonic() < deadline:
                self.course.take_next(deadline - time.monotonic())
            if self.course.facts.exit_code is not None:
                return

    def look_back(self) -> None:
        """See how it ended."""
        if self.course.facts.stop in {Stop.ENGINE_LOST, Stop.LEASE_LOST}:
            return
        try:
            self._look_back()
        except EngineError as error:
            lost = events.Stopped(stop=Stop.ENGINE_LOST, detail=str(error))
            self.course.look_back(oom_killed=False, found=lost)

    def _signal(self, signal: str) -> None:
        try:
            self.station.engine.signal_container(self.container_id, signal)
        except EngineError as error:
            _log.warning("signal failed: %s", error, extra=self.course.said | {"action": "signal_failed"})

    def _look_back(self) -> None:
        engine = self.station.engine
        oom_killed = self._was_oom_killed()
        if self.course.facts.stop is not None:
            self.course.look_back(oom_killed=oom_killed)
            return
        if self.course.facts.exit_code == 0:
            self.course.look_back(oom_killed=oom_killed, found=self._full_disk())
            return
        line = last_line(engine.tail_logs(self.container_id, _LAST_LINES))
        # A model that ran into the file size limit may have said anything, but what it wrote tells.
        excess = output_excess(self.workspace.output, self.lease.limits)
        too_much = None if excess is None else events.Stopped(stop=Stop.OUTPUT_TOO_LARGE, detail=excess)
        self.course.look_back(oom_killed=oom_killed, last_line=line, found=too_much or self._full_disk())

    def _was_oom_killed(self) -> bool:
        """Whether the kernel killed for want of memory.

        The engine may know that a moment after the end, or never. Then a model that was killed, and by nobody
        who asked the engine to, is believed to be whom the kernel meant when it killed meanwhile.
        """
        engine = self.station.engine
        kernel_killed = engine.memory_kills() > self.memory_kills_before
        killed = self.course.facts.exit_code == _KILLED
        unexplained = self.course.facts.stop is None and (killed or kernel_killed)
        deadline = time.monotonic() + _OOM_SECONDS
        while True:
            found = engine.find_container(self.container_id)
            if found is None or found.oom_killed:
                return found is not None
            if not unexplained:
                return False
            if time.monotonic() >= deadline:
                return killed and kernel_killed and not engine.was_signaled(found)
            time.sleep(_OOM_LOOK_SECONDS)

    def _full_disk(self) -> events.Stopped | None:
        """A model that found no room on the node did not fail, nor did it end well whatever it says.

        One that ended badly is believed to have found none where less is left than is kept free. One that
        says that it ended well has lost something only where nothing is left at all.
        """
        ended_well = self.course.facts.exit_code == 0
        output, keep_bytes = self.workspace.output, self.station.settings.minimum_free_bytes
        shortage = exhaustion(output) if ended_well else disk_shortage(output, keep_bytes)
        if shortage is None:
            return None
        detail = f"{shortage}, and the model may have found no room for its output."
        return events.Stopped(stop=Stop.NODE_FULL, detail=detail)


def ending_of(facts: Facts) -> Ending | None:
    """What the record says of a stop; nothing of a lost lease, which the next life hears of by itself."""
    if facts.stop is None or facts.stop is Stop.LEASE_LOST:
        return None
    return Ending(cause=facts.stop.name, detail=facts.detail, code=facts.prevented_code)


def event_of(ending: Ending) -> events.Prevented | events.Stopped:
    """The event that an earlier life had noted."""
    stop = Stop[ending.cause]
    if stop is Stop.PREVENTED:
        return events.Prevented(code=ending.code or ReasonCode.INTERNAL_ERROR, sentence=ending.detail)
    return events.Stopped(stop=stop, detail=ending.detail)
