"""One attempt of one task, from its lease to its last word.

The slot enters with a lease and an empty workspace, or with a container that an earlier life left running.
Producers on threads of their own put events on one queue, which only the attempt's ``Course`` takes them off;
``decide`` is the only judge of how it ended. Nothing here removes anything: that is the cleaner's.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Thread

from consumer.attempt import events
from consumer.attempt.conclusion import Conclusion
from consumer.attempt.course import Course
from consumer.attempt.ending import ContainerEnd, event_of
from consumer.attempt.observation import Observation, exit_producer
from consumer.attempt.preparation import Preparation, failure_event
from consumer.attempt.verdict import Stop, Verdict, decide, start_failure
from consumer.metrics import count_attempt
from consumer.node.record import Ending
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside.engine import ContainerFacts, ExitWatch
from consumer.outside.errors import AbandonedError, EngineError, RefusedError
from contracts.messages import Lease
from contracts.states import Phase

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """Where an earlier life of this slot had got to. ``container`` is null when none was ever started."""

    # Where the log of this life's container begins in the attempt's log.
    log_begins_at: int = 0
    container: ContainerFacts | None = None
    # Set when the earlier life had begun to end the container.
    ending: Ending | None = None


class Attempt:
    """Runs one attempt, in these steps:

    1. Fetch the input, and at the same time find or pull the image, bring the content, create the container.
    2. Start the container, follow its log and watch its limits until it exits, or something says that it must
       not go on; then make it end.
    3. Judge what was seen. After a success, send the output.
    4. Send the rest of the log, then say the last word: complete or fail. After a lost lease, say nothing.

    A cancel, a drain or a lost lease may come at any moment: each step ends early then.
    """

    def __init__(
        self,
        station: Station,
        lease: Lease,
        workspace: Workspace,
        holder: str,
        resumption: Resumption | None = None,
    ) -> None:
        self._station = station
        self._lease = lease
        self._workspace = workspace
        self._holder = holder
        self._resumption = resumption or Resumption()
        said = {"task_id": lease.task_id, "attempt": lease.attempt, "slot": station.slot.name}
        self._course = Course(lease, station.settings, station.server.heartbeat, said)
        self._conclusion = Conclusion(station, lease, workspace, self._course)
        self._observation: Observation | None = None
        self._threads: list[Thread] = []
        self._started = False
        self._memory_kills_before = station.engine.memory_kills()

    def emit(self, event: events.Event) -> None:
        """Put an event on the attempt's queue, from any thread."""
        self._course.emit(event)

    @property
    def may_still_run(self) -> bool:
        """Whether its container was started and nobody has seen it end."""
        return self._started and self._course.facts.exit_code is None

    def settle(self, seconds: float) -> None:
        """Wait for threads that may still write into the workspace after ``run`` has returned."""
        deadline = time.monotonic() + seconds
        for thread in self._threads + self._conclusion.threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        """All steps; returns when the last word has been said, or when there is nobody to hear it."""
        _log.info("attempt begins", extra=self._course.said | {"action": "attempt_began"})
        self._take_over()
        self._course.heartbeat.start()
        try:
            self._run_container()
            verdict = decide(self._course.facts)
            if verdict.succeeded:
                self._conclusion.deliver()
                verdict = decide(self._course.facts)
            if self._course.facts.stop is not Stop.LEASE_LOST:
                if self._observation is not None:
                    self._conclusion.end_log(self._observation.log)
                verdict = self._conclusion.say_last_word(verdict)
        except AbandonedError:
            # Only a lost lease interrupts the last word.
            verdict = decide(self._course.facts)
        finally:
            self._close()
        self._log_end(verdict)

    def _take_over(self) -> None:
        """Begin where the earlier life was, before the server hears of this one."""
        if self._resumption.container is not None:
            self._started = True
            self._course.enter(Phase.RUNNING)
        if self._resumption.ending is not None:
            self._course.take(event_of(self._resumption.ending))

    def _close(self) -> None:
        self._course.abandoned.set()
        self._course.heartbeat.close()
        if self._observation is not None:
            self._observation.end_watch()
            self._observation.log.abandon()
        elif self._course.created is not None:
            self._course.created.watch.close()

    # Step 1 and 2: the container.

    def _run_container(self) -> None:
        if self._resumption.container is not None:
            self._resume(self._resumption.container)
        elif self._prepare():
            self._start()
        self._course.wait_for(lambda: self._course.facts.exit_code is not None)
        if self._observation is not None:
            self._end_container(self._observation)

    def _prepare(self) -> bool:
        preparation = Preparation(
            station=self._station,
            lease=self._lease,
            workspace=self._workspace,
            holder=self._holder,
            emit=self._course.emit,
            abandoned=self._course.abandoned,
        )
        self._threads += preparation.start()
        return self._course.wait_for(lambda: self._course.input_ready and self._course.created is not None)

    def _start(self) -> None:
        created = self._course.created
        assert created is not None, "prepared"  # noqa: S101 - For the type checker: preparation has ended well.
        # The server hears of it while the engine is busy starting.
        self._course.enter(Phase.RUNNING)
        deadline = time.monotonic() + self._lease.limits.time_seconds
        self._started = True
        try:
            self._station.engine.start_container(created.container_id)
        except RefusedError as error:
            code, sentence = start_failure(error.message)
            self._course.take(events.Prevented(code=code, sentence=sentence))
        except EngineError as error:
            self._course.take(failure_event(error))
        else:
            self._observe(created.container_id, created.watch, deadline)

    def _resume(self, container: ContainerFacts) -> None:
        _log.info("container adopted", extra=self._course.said | {"action": "container_adopted"})
        try:
            # By the engine's own clock, which need not agree with ours.
            now = self._station.engine.host().now
            ran_seconds = max(0.0, now - container.started_at) if now and container.started_at else 0.0
            deadline = time.monotonic() + self._lease.limits.time_seconds - ran_seconds
            watch = self._station.engine.watch_exit(container.container_id)
        except EngineError as error:
            self._course.take(failure_event(error))
        else:
            self._observe(container.container_id, watch, deadline)

    def _observe(self, container_id: str, watch: ExitWatch, deadline: float) -> None:
        self._observation = Observation(
            self._station,
            self._lease,
            self._workspace,
            container_id,
            log_begins_at=self._resumption.log_begins_at,
        )
        exit_producer(self._station.engine, container_id, watch, self._course.emit).start()
        self._observation.start(deadline, self._course.emit, self._course.heartbeat.report)

    def _end_container(self, observation: Observation) -> None:
        end = ContainerEnd(
            station=self._station,
            lease=self._lease,
            workspace=self._workspace,
            course=self._course,
            container_id=observation.container_id,
            memory_kills_before=self._memory_kills_before,
        )
        end.bring_about()
        observation.end_watch()
        end.look_back()

    def _log_end(self, verdict: Verdict) -> None:
        lost = self._course.facts.stop is Stop.LEASE_LOST
        outcome = "lease_lost" if lost else (verdict.code.value if verdict.code else "succeeded")
        said = self._course.said | {
            "action": "attempt_ended",
            "outcome": outcome,
            "durations": self._course.durations,
        }
        _log.info("attempt ended: %s", outcome, extra=said)
        count_attempt(outcome, self._course.durations)
