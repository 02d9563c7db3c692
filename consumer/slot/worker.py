"""The life of one slot: go on with what an earlier life left, then claim and run tasks until told to stop.

``__main__ --slot`` enters. One task at a time; everything that can be done before there is a task is done
while idle.
"""

from __future__ import annotations

import errno
import logging
from threading import Event, Lock, Timer

from consumer.attempt.events import Stopped
from consumer.attempt.run import Attempt, Resumption
from consumer.attempt.verdict import Stop
from consumer.node.record import Record
from consumer.node.station import Station
from consumer.node.usage import free_bytes
from consumer.node.workspace import Workspace
from consumer.outside.backoff import delays
from consumer.outside.errors import AbandonedError, CallRefusedError, EngineError, ServerAwayError
from consumer.slot.cleaning import Cleaner
from consumer.slot.recovery import Recovered, recover
from contracts.messages import ClaimRequest, Lease

_log = logging.getLogger(__name__)

# How long an ending slot waits for its cleaner; the next life removes what is left then.
_CLEANING_SECONDS = 10.0


class SlotWorker:
    """Claims and runs tasks on one slot."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._cleaner = Cleaner(station.workspaces)
        self._draining = Event()
        self._lock = Lock()
        self._attempt: Attempt | None = None
        self._prepared: Workspace | None = None

    def drain(self) -> None:
        """Claim nothing more, and hand the running task back unless it ends within ``drain_seconds``.

        May be called from a signal handler's thread, more than once.
        """
        if self._draining.is_set():
            return
        self._draining.set()
        _log.info("draining", extra={"action": "drain_began", "slot": self._station.slot.name})
        timer = Timer(self._station.settings.drain_seconds, self._stop_attempt)
        timer.daemon = True
        timer.start()

    def run(self) -> None:
        """Work until drained."""
        pauses = delays()
        self._cleaner.start()
        recovered = self._recover()
        if recovered is not None:
            self._work(recovered.record.lease, recovered.workspace, recovered.resumption)
        while not self._draining.is_set():
            try:
                self._claim_and_work()
            except (EngineError, ServerAwayError, CallRefusedError, OSError) as error:
                _log.warning("not ready: %s", error, extra={"action": "slot_not_ready"})
                self._draining.wait(next(pauses))
            else:
                pauses = delays()
        self._leave()

    def _recover(self) -> Recovered | None:
        """Adopt or forget the earlier attempt, and remove every other leftover."""
        for pause in delays():
            try:
                recovered = recover(self._station, self._cleaner, self._draining.wait)
                self._cleaner.sweep()
            except EngineError as error:
                _log.warning("engine away: %s", error, extra={"action": "slot_not_ready"})
                if self._draining.wait(pause):
                    return None
            except AbandonedError:
                return None
            else:
                return recovered
        return None

    def _claim_and_work(self) -> None:
        # Asking for work only when the engine answers and all is prepared: a task must not wait for that.
        holder = self._station.holder.ensure_running()
        if self._prepared is None:
            self._prepared = self._cleaner.create()
        self._check_disk()
        lease = self._station.server.claim(
            ClaimRequest(
                node=self._station.settings.node,
                slot=self._station.slot.name,
                kinds=[self._station.slot.kind],
                wait_seconds=self._station.settings.claim_wait_seconds,
            )
        )
        if lease is not None:
            workspace, self._prepared = self._prepared, None
            self._station.record.write(Record(lease=lease, workspace_id=workspace.workspace_id))
            self._work(lease, workspace, Resumption(log_bytes=0, container=None), holder)

    def _check_disk(self) -> None:
        """Claim nothing that this node's disk would have to refuse; raises ``OSError``."""
        settings = self._station.settings
        free = free_bytes(settings.directory)
        if free < settings.minimum_free_bytes:
            raise OSError(errno.ENOSPC, f"only {free:,} bytes of disk are left in {settings.directory}")

    def _work(self, lease: Lease, workspace: Workspace, resumption: Resumption, holder: str = "") -> None:
        attempt = Attempt(
            self._station, lease, workspace, holder or self._station.holder.ensure_running(), resumption
        )
        with self._lock:
            self._attempt = attempt
        if self._draining.is_set():
            # Told to stop while the claim was held: the task has lost nothing yet, so it goes back at once.
            self._stop_attempt()
        try:
            attempt.run()
        finally:
            with self._lock:
                self._attempt = None
        self._station.record.remove()
        self._cleaner.discard(workspace, attempt.settle)

    def _stop_attempt(self) -> None:
        with self._lock:
            attempt = self._attempt
        if attempt is not None:
            attempt.emit(Stopped(stop=Stop.DRAINED))

    def _leave(self) -> None:
        """Leave nothing behind."""
        if self._prepared is not None:
            self._cleaner.discard(self._prepared)
        self._cleaner.finish(_CLEANING_SECONDS)
        try:
            self._station.holder.remove()
        except EngineError as error:
            _log.warning("the holder stays behind: %s", error, extra={"action": "cleaning_failed"})
