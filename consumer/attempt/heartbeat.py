"""Keeping a lease alive, telling the server the phase and progress, and hearing of a cancel.

An attempt starts one heartbeat and tells it the phases. It never stops anything itself: it puts what it
heard on the attempt's queue. While the server is away it keeps trying for as long as the attempt lives.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Condition, Thread

from consumer.attempt.events import Emit, Stopped
from consumer.attempt.verdict import Stop
from consumer.outside.backoff import delays
from consumer.outside.errors import CallRefusedError, KeyRefusedError, ServerAwayError, StaleLeaseError
from contracts.messages import Heartbeat, HeartbeatAnswer, Lease, Progress, ResolvedImage
from contracts.states import Phase
from serving.logs import same_work

_log = logging.getLogger(__name__)

# The server holds a heartbeat this long, so a cancel is heard at once and progress travels within this time.
HELD_SECONDS = 2.0
# In the first seconds, and before the model runs, heartbeats are not held: small tasks would leave one
# hanging at the server each, and a change of phase could not be told. A cancel is heard within this time
# then.
UNHELD_PAUSE_SECONDS = 1.0
YOUNG_SECONDS = 3.0
# Whose key is revoked may not go on with what it has; but where keys are being exchanged, the new one may
# reach the server's database and our file a moment apart.
KEY_GRACE_SECONDS = 3.0


class HeartbeatLoop:
    """A thread that beats until it is closed or the lease is over."""

    def __init__(self, lease: Lease, beat: Callable[[Lease, Heartbeat], HeartbeatAnswer], emit: Emit) -> None:
        self._lease = lease
        self._beat = beat
        self._emit = emit
        self._changed = Condition()
        self._closed = False
        self._phase = Phase.FETCHING
        self._told: Phase | None = None
        self._image: ResolvedImage | None = None
        self._progress: Progress | None = None
        self._cancel_heard = False
        self._began = time.monotonic()
        self._thread = Thread(target=same_work(self._run), name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """End; a heartbeat that the server holds is left to run out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def enter(self, phase: Phase, *, urgent: bool = True) -> None:
        """The attempt is in another phase now; a beat that says so leaves at once when that is ``urgent``."""
        with self._changed:
            self._phase = phase
            if urgent:
                self._changed.notify_all()

    def resolve(self, image: ResolvedImage) -> None:
        """Send this along with the next beat."""
        with self._changed:
            self._image = image

    def report(self, progress: Progress) -> None:
        """Send this along with the next beat."""
        with self._changed:
            self._progress = progress

    def told_running(self, seconds: float) -> bool:
        """Whether the server knows that the model has run, waiting up to ``seconds`` for that."""
        with self._changed:
            told = self._changed.wait_for(lambda: self._told in {Phase.RUNNING, Phase.UPLOADING}, seconds)
        # Nobody would ever tell it any more.
        return told or not self._thread.is_alive()

    def _run(self) -> None:
        pauses = delays()
        well_at = time.monotonic()
        while not self._closed:
            beat = self._next_beat()
            try:
                answer = self._beat(self._lease, beat)
            except StaleLeaseError as error:
                self._emit(Stopped(stop=Stop.LEASE_LOST, detail=str(error)))
                return
            except KeyRefusedError as error:
                if time.monotonic() - well_at >= KEY_GRACE_SECONDS:
                    _log.error("our key is refused: %s", error.detail, extra={"action": "key_refused"})
                    self._emit(Stopped(stop=Stop.LEASE_LOST, detail=f"our key is refused: {error.detail}"))
                    return
                self._pause(UNHELD_PAUSE_SECONDS, wake=None)
                continue
            except (ServerAwayError, CallRefusedError) as error:
                _log.warning("heartbeat failed: %s", error, extra={"action": "heartbeat_failed"})
                self._pause(next(pauses), wake=None)
                continue
            pauses = delays()
            well_at = time.monotonic()
            self._heard(beat, answer)
            if not beat.wait_seconds:
                self._pause(UNHELD_PAUSE_SECONDS, wake=beat.phase)

    def _next_beat(self) -> Heartbeat:
        with self._changed:
            young = time.monotonic() - self._began < YOUNG_SECONDS
            early = self._phase in {Phase.FETCHING, Phase.PULLING} or self._told is not self._phase
            held = 0.0 if young or early else HELD_SECONDS
            return Heartbeat(phase=self._phase, wait_seconds=held, progress=self._progress, image=self._image)

    def _heard(self, beat: Heartbeat, answer: HeartbeatAnswer) -> None:
        with self._changed:
            self._told = beat.phase
            self._changed.notify_all()
        if answer.cancel_requested and not self._cancel_heard:
            self._cancel_heard = True
            self._emit(Stopped(stop=Stop.CANCELED))

    def _pause(self, seconds: float, wake: Phase | None) -> None:
        """Wait; a phase other than ``wake`` (when given) ends the wait, and so does ``close``."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (wake is not None and self._phase is not wake), seconds
            )
