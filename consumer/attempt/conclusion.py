"""The end of an attempt towards the server: send the output, the rest of the log, then the last word.

An attempt enters once nothing of it runs any more. A result is thrown away only when the server says that
nobody wants it: it is kept and said again while the server is away or does not know our key, and an output
that the server cannot find again is sent again.
"""

from __future__ import annotations

import logging
from threading import Thread

from consumer.attempt import events
from consumer.attempt.course import Course
from consumer.attempt.delivery import deliver, keyless_is_away
from consumer.attempt.logs import LogFollower
from consumer.attempt.preparation import producer
from consumer.attempt.progress import read_progress
from consumer.attempt.sandbox import PROGRESS_FILE
from consumer.attempt.verdict import Stop, Verdict, decide
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside.backoff import persist
from consumer.outside.errors import CallRefusedError, StaleLeaseError
from contracts.messages import Completion, Failure, Lease, Progress
from contracts.problems import ProblemCode
from contracts.reasons import ReasonCode
from contracts.states import Phase

_log = logging.getLogger(__name__)

# An output that the server loses so often in a row will not be found the next time either.
_UPLOADS = 3
_POLL_SECONDS = 0.1


class Conclusion:
    """Delivery and last word of one attempt."""

    def __init__(self, station: Station, lease: Lease, workspace: Workspace, course: Course) -> None:
        self._station = station
        self._lease = lease
        self._workspace = workspace
        self._course = course
        self.threads: list[Thread] = []

    def deliver(self) -> None:
        """Send the output; afterwards it is delivered, or the attempt is stopped."""
        self._course.delivered = None
        # Most outputs are sent before a heartbeat that says so would be: it travels with the next one.
        self._course.enter(Phase.UPLOADING, urgent=False)
        server, lease, output = self._station.server, self._lease, self._workspace.output

        def send() -> None:
            stored, notes = deliver(server, lease, output, self._course.abandoned)
            self._course.emit(events.Delivered(output=stored, notes=notes))

        thread = producer(send, self._course.emit, "delivery")
        self.threads.append(thread)
        thread.start()
        self._course.wait_for(lambda: self._course.delivered is not None)

    def end_log(self, log: LogFollower) -> None:
        """Send the rest of the log, and what was left out of the output."""
        notes = self._course.delivered.notes if self._course.delivered is not None else []
        log.end_reading("".join(f"[inferenceserver] {note}\n" for note in notes))
        while not log.sent(_POLL_SECONDS):
            self._course.give_way(0.0)

    def say_last_word(self, verdict: Verdict) -> Verdict:
        """Complete or fail, and return what was said; raises ``AbandonedError`` once the lease is lost."""
        uploads = 1
        while True:
            try:
                self._say(verdict)
            except StaleLeaseError as error:
                # Somebody was first, or an answer to us got lost on its way: there is nothing to add.
                self._course.take(events.Stopped(stop=Stop.LEASE_LOST, detail=str(error)))
                return verdict
            except CallRefusedError as error:
                said = self._course.said | {"action": "last_word_refused"}
                _log.error("last word refused: %s", error, extra=said)
                if not verdict.succeeded:
                    # There is nothing else to say: the lease ends by itself.
                    return verdict
                verdict = self._instead(verdict, error, again=uploads < _UPLOADS)
                uploads += 1
            else:
                return verdict

    def _instead(self, verdict: Verdict, error: CallRefusedError, *, again: bool) -> Verdict:
        """What to say when the server does not take a completion."""
        if error.code == ProblemCode.CHECKSUM_MISMATCH and again:
            self.deliver()
            return decide(self._course.facts)
        sentence = f"The server does not take the result: {error.detail or error}"
        return Verdict(code=ReasonCode.STORAGE_FAILED, sentence=sentence, exit_code=verdict.exit_code)

    def _say(self, verdict: Verdict) -> None:
        self._course.note_duration()
        delivered = self._course.delivered
        if verdict.code is None and delivered is not None:
            self._complete(delivered, verdict)
        else:
            self._fail(verdict)

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
        server, lease = self._station.server, self._lease
        persist(keyless_is_away(lambda: server.complete(lease, completion)), self._course.give_way)

    def _fail(self, verdict: Verdict) -> None:
        failure = Failure(
            reason_code=verdict.code or ReasonCode.INTERNAL_ERROR,
            reason=verdict.sentence,
            exit_code=verdict.exit_code,
            durations=self._course.durations,
            progress=self._last_progress(),
        )
        server, lease = self._station.server, self._lease
        persist(keyless_is_away(lambda: server.fail(lease, failure)), self._course.give_way)

    def _last_progress(self) -> Progress | None:
        return read_progress(self._workspace.progress / PROGRESS_FILE)
