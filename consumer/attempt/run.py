"""One attempt of one task, from its lease to its last word.

The slot enters with a lease and an empty workspace, or with a container that an earlier life left running.
Producers on threads of their own put events on one queue, which only the attempt's ``Course`` takes them off;
``decide`` is the only judge of how it ended. Nothing here removes anything: that is the cleaner's.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from threading import Thread

from consumer.attempt import events
from consumer.attempt.course import Course
from consumer.attempt.delivery import deliver
from consumer.attempt.observation import Observation, exit_producer
from consumer.attempt.preparation import Preparation, failure_event, producer
from consumer.attempt.progress import read_progress
from consumer.attempt.sandbox import PROGRESS_FILE
from consumer.attempt.verdict import Stop, Verdict, decide, last_line, start_failure
from consumer.attempt.watch import output_excess
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside.backoff import persist
from consumer.outside.engine import ContainerFacts, ExitWatch
from consumer.outside.errors import (
    AbandonedError,
    CallRefusedError,
    EngineError,
    RefusedError,
    StaleLeaseError,
)
from contracts.messages import Completion, Failure, Lease, Progress
from contracts.reasons import ReasonCode
from contracts.states import Phase

_log = logging.getLogger(__name__)

# A model that is canceled may tidy up this long; one that passed a limit is killed at once.
GRACE_SECONDS = 2.0
# A killed container that does not end within this time is in the hands of a broken engine or kernel.
KILL_SECONDS = 30.0
# The program's last words are among these; the engine's init may speak after it.
_LAST_LINES = 5
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """Where an earlier life of this slot had got to. ``container`` is null when none was ever started."""

    log_bytes: int
    container: ContainerFacts | None


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
        self._resumption = resumption or Resumption(log_bytes=0, container=None)
        self._said = {"task_id": lease.task_id, "attempt": lease.attempt, "slot": station.slot.name}
        self._course = Course(lease, station.settings, station.server.heartbeat, self._said)
        self._observation: Observation | None = None
        self._threads: list[Thread] = []

    def emit(self, event: events.Event) -> None:
        """Put an event on the attempt's queue, from any thread."""
        self._course.emit(event)

    def settle(self, seconds: float) -> None:
        """Wait for threads that may still write into the workspace after ``run`` has returned."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def run(self) -> None:
        """All steps; returns when the last word has been said, or when there is nobody to hear it."""
        _log.info("attempt begins", extra=self._said | {"action": "attempt_began"})
        self._course.heartbeat.start()
        try:
            self._run_container()
            verdict = decide(self._course.facts)
            if verdict.succeeded:
                self._deliver()
                verdict = decide(self._course.facts)
            if self._course.facts.stop is not Stop.LEASE_LOST:
                self._say_last_word(verdict)
        except AbandonedError:
            # Only a lost lease interrupts the last word.
            verdict = decide(self._course.facts)
        finally:
            self._course.abandoned.set()
            self._course.heartbeat.close()
            if self._observation is not None:
                self._observation.log.abandon()
            elif self._course.created is not None:
                self._course.created.watch.close()
        self._log_end(verdict)

    # Step 1 and 2: the container.

    def _run_container(self) -> None:
        if self._resumption.container is not None:
            self._resume(self._resumption.container)
        elif self._prepare():
            self._start()
        self._course.wait_for(lambda: self._course.facts.exit_code is not None)
        if self._observation is not None:
            self._end_container()

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
        _log.info("container adopted", extra=self._said | {"action": "container_adopted"})
        self._course.enter(Phase.RUNNING)
        ran_seconds = max(0.0, time.time() - (container.started_at or time.time()))
        deadline = time.monotonic() + self._lease.limits.time_seconds - ran_seconds
        try:
            watch = self._station.engine.watch_exit(container.container_id)
        except EngineError as error:
            self._course.take(failure_event(error))
        else:
            self._observe(container.container_id, watch, deadline)

    def _observe(self, container_id: str, watch: ExitWatch, deadline: float) -> None:
        log_bytes = self._resumption.log_bytes
        self._observation = Observation(
            self._station,
            self._lease,
            self._workspace,
            container_id,
            stored_log_bytes=log_bytes,
            # An adopted container's log holds what has been sent already, a new one's does not.
            skip_log_bytes=log_bytes if self._resumption.container is not None else 0,
        )
        exit_producer(self._station.engine, container_id, watch, self._course.emit).start()
        self._observation.start(deadline, self._course.emit, self._course.heartbeat.report)

    def _end_container(self) -> None:
        """Make it end if it has not, and see how it did."""
        observation = self._observation
        assert observation is not None, "started"  # noqa: S101 - For the type checker.
        if self._course.facts.exit_code is None and self._course.facts.stop is not Stop.ENGINE_LOST:
            self._kill(observation.container_id)
        observation.end_watch()
        if self._course.facts.stop in {Stop.ENGINE_LOST, Stop.LEASE_LOST}:
            return
        try:
            self._look_back(observation.container_id)
        except EngineError as error:
            self._course.facts = replace(self._course.facts, stop=Stop.ENGINE_LOST, detail=str(error))

    def _kill(self, container_id: str) -> None:
        graceful = self._course.facts.stop in {Stop.CANCELED, Stop.DRAINED}
        for signal, seconds in [("SIGTERM", GRACE_SECONDS)] * graceful + [("SIGKILL", KILL_SECONDS)]:
            try:
                self._station.engine.signal_container(container_id, signal)
            except EngineError as error:
                _log.warning("signal failed: %s", error, extra=self._said | {"action": "signal_failed"})
            deadline = time.monotonic() + seconds
            while self._course.facts.exit_code is None and time.monotonic() < deadline:
                self._course.take_next(deadline - time.monotonic())
            if self._course.facts.exit_code is not None:
                return

    def _look_back(self, container_id: str) -> None:
        found = self._station.engine.find_container(container_id)
        oom_killed = found is not None and found.oom_killed
        self._course.facts = replace(self._course.facts, oom_killed=oom_killed)
        if self._course.facts.exit_code == 0 or self._course.facts.stop is not None:
            return
        tail = self._station.engine.tail_logs(container_id, _LAST_LINES)
        self._course.facts = replace(self._course.facts, last_line=last_line(tail))
        # A model that ran into the file size limit may have said anything, but what it wrote tells.
        too_much = output_excess(self._workspace.output, self._lease.limits)
        if too_much is not None:
            self._course.facts = replace(self._course.facts, stop=Stop.OUTPUT_TOO_LARGE, detail=too_much)

    # Step 3 and 4: what comes of it.

    def _deliver(self) -> None:
        # Most outputs are sent before a heartbeat that says so would be: it travels with the next one.
        self._course.enter(Phase.UPLOADING, urgent=False)
        server, lease, output = self._station.server, self._lease, self._workspace.output

        def send() -> None:
            stored, notes = deliver(server, lease, output, self._course.abandoned)
            self._course.emit(events.Delivered(output=stored, notes=notes))

        thread = producer(send, self._course.emit, "delivery")
        self._threads.append(thread)
        thread.start()
        self._course.wait_for(lambda: self._course.delivered is not None)

    def _say_last_word(self, verdict: Verdict) -> None:
        if self._observation is not None:
            notes = self._course.delivered.notes if self._course.delivered is not None else []
            self._observation.log.end_reading("".join(f"[inferenceserver] {note}\n" for note in notes))
            while not self._observation.log.sent(_POLL_SECONDS):
                self._course.give_way(0.0)
        self._course.note_duration()
        try:
            if verdict.code is None and self._course.delivered is not None:
                self._complete(self._course.delivered, verdict)
            else:
                self._fail(verdict)
        except StaleLeaseError:
            # Somebody was first, or an answer to us got lost on its way: either way there is nothing to add.
            self._course.facts = replace(self._course.facts, stop=Stop.LEASE_LOST)
        except CallRefusedError as error:
            _log.error("last word refused: %s", error, extra=self._said | {"action": "last_word_refused"})

    def _complete(self, delivered: events.Delivered, verdict: Verdict) -> None:
        # The state machine has no arrow from starting to succeeded.
        while not self._course.heartbeat.told_running(_POLL_SECONDS):
            self._course.give_way(0.0)
        completion = Completion(
            output=delivered.output,
            exit_code=verdict.exit_code or 0,
            durations=self._course.durations,
            progress=self._last_progress(),
        )
        persist(lambda: self._station.server.complete(self._lease, completion), self._course.give_way)

    def _fail(self, verdict: Verdict) -> None:
        failure = Failure(
            reason_code=verdict.code or ReasonCode.INTERNAL_ERROR,
            reason=verdict.sentence,
            exit_code=verdict.exit_code,
            durations=self._course.durations,
            progress=self._last_progress(),
        )
        persist(lambda: self._station.server.fail(self._lease, failure), self._course.give_way)

    def _last_progress(self) -> Progress | None:
        return read_progress(self._workspace.progress / PROGRESS_FILE)

    def _log_end(self, verdict: Verdict) -> None:
        lost = self._course.facts.stop is Stop.LEASE_LOST
        outcome = "lease_lost" if lost else (verdict.code.value if verdict.code else "succeeded")
        said = self._said | {
            "action": "attempt_ended",
            "outcome": outcome,
            "durations": self._course.durations,
        }
        _log.info("attempt ended: %s", outcome, extra=said)
