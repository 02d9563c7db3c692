"""The life of one slot: go on with what an earlier life left, then claim and run tasks until told to stop.

``__main__ --slot`` enters. One task at a time; everything that can be done before there is a task is done
while idle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Lock, Timer
from typing import TypeVar

from consumer.attempt.events import Stopped
from consumer.attempt.run import Attempt, Resumption
from consumer.attempt.verdict import Stop
from consumer.metrics import SlotState, show_slot
from consumer.node.fetching import disk_failure
from consumer.node.record import Record
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside.backoff import delays, persist
from consumer.outside.errors import (
    AbandonedError,
    CallRefusedError,
    EngineError,
    KeyRefusedError,
    RefusedError,
    ServerAwayError,
    ServerError,
)
from consumer.slot.cleaning import Cleaner, make_way
from consumer.slot.recovery import recover
from consumer.slot.sources import LongPoll, WorkSource
from contracts.messages import Failure, Lease
from contracts.problems import ProblemCode
from contracts.reasons import ReasonCode
from serving.logs import working_on

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)

# How long an ending slot waits for its cleaner; the next life removes what is left then.
_CLEANING_SECONDS = 10.0
# Between two claims with a key that is refused: at first, and in the end.
_KNOCK_SECONDS, _LONGEST_KNOCK_SECONDS = 4.0, 60.0
# How often a slot of a node that takes no tasks looks whether it does again.
_CLOSED_SECONDS = 0.5


class SlotWorker:
    """Claims and runs tasks on one slot."""

    def __init__(self, station: Station, source: WorkSource | None = None) -> None:
        self._station = station
        self._source = source or LongPoll(station)
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
        self._source.leave()

    def run(self) -> None:
        """Work until drained."""
        self._show(SlotState.NOT_READY)
        self._cleaner.start()
        self._go_on()
        pauses, knocks = delays(), delays(_KNOCK_SECONDS, _LONGEST_KNOCK_SECONDS)
        while not self._draining.is_set():
            if self._station.intake.closed() is not None:
                # The parent process says why.
                self._show(SlotState.DRAINING)
                self._draining.wait(_CLOSED_SECONDS)
                continue
            after = SlotState.NOT_READY
            try:
                self._show(SlotState.IDLE)
                well = self._claim_and_work()
            except KeyRefusedError as error:
                self._show(SlotState.NOT_READY)
                self._wait_for_key(error, next(knocks))
                continue
            except CallRefusedError as error:
                well = False
                if error.code == ProblemCode.NODE_DRAINING:
                    after = SlotState.DRAINING
                    # The server's claims know it before our parent process does.
                    _log.info("this node is being drained", extra={"action": "node_draining"})
                else:
                    _log.warning("not ready: %s", error, extra={"action": "slot_not_ready"})
            except (EngineError, ServerAwayError, OSError) as error:
                _log.warning("not ready: %s", error, extra={"action": "slot_not_ready"})
                well = False
            if well:
                pauses, knocks = delays(), delays(_KNOCK_SECONDS, _LONGEST_KNOCK_SECONDS)
            else:
                self._show(after)
                self._draining.wait(next(pauses))
        self._leave()

    def _wait_for_key(self, error: KeyRefusedError, seconds: float) -> None:
        """Knock ever more slowly: an address from which many wrong keys come is shut out for a while."""
        _log.error(
            "the server refuses this worker's key (%s); a valid one in %s is tried within %.0f s",
            error.detail,
            self._station.settings.worker_key_file,
            seconds,
            extra={"action": "key_refused", "slot": self._station.slot.name},
        )
        self._draining.wait(seconds)

    def _go_on(self) -> None:
        """Go on with the earlier life's attempt, and remove every other leftover before anything new runs."""
        recovered = self._retry(lambda: recover(self._station, self._cleaner, self._draining.wait))
        if recovered is not None and recovered.resumption.container is not None:
            self._work(recovered.record.lease, recovered.workspace, recovered.resumption)
            recovered = None
        self._retry(self._clear)
        if recovered is not None:
            holder = self._retry(self._station.holder.ensure_running) or ""
            self._work(recovered.record.lease, recovered.workspace, recovered.resumption, holder)

    def _retry(self, call: Callable[[], _Result]) -> _Result | None:
        """``call`` until the engine and the disk let it; None once drained."""
        for pause in delays():
            try:
                return call()
            except (EngineError, OSError) as error:
                _log.warning("not ready: %s", error, extra={"action": "slot_not_ready"})
                if self._draining.wait(pause):
                    return None
            except AbandonedError:
                return None
        return None

    def _clear(self) -> None:
        """Remove all leftovers; raises ``EngineError`` while a container among them runs on all the same."""
        try:
            self._cleaner.sweep()
        except RefusedError as error:
            # What cannot be removed is in nobody's way unless it runs; the cleaner tries it again.
            _log.warning("cleaning failed: %s", error, extra={"action": "cleaning_failed"})
        for workspace in self._cleaner.leftovers():
            found = self._station.engine.find_container(workspace.container_name)
            if found is not None and found.running:
                raise EngineError(f"container {workspace.container_name} of an earlier life still runs")

    def _claim_and_work(self) -> bool:
        """Wait for a task and run it; false when the slot itself got in its way."""
        if not self._station.room.suffices():
            return False
        # Asking for work only when the engine answers and all is prepared: a task must not wait for that.
        holder = self._station.holder.ensure_running()
        if self._prepared is None:
            self._prepared = self._cleaner.create()
        else:
            # An idle slot's volumes are nobody's, so they go when somebody prunes the engine's volumes. The
            # engine would then make empty ones of these names, and the model find no input.
            self._station.workspaces.ensure_volumes(self._prepared)
        lease = self._source.next_lease()
        if lease is None:
            return True
        workspace, self._prepared = self._prepared, None
        try:
            self._station.record.write(Record(lease=lease, workspace_id=workspace.workspace_id))
        except OSError as error:
            self._give_back(lease, error)
            self._cleaner.discard(workspace)
            return False
        return self._work(lease, workspace, Resumption(), holder)

    def _work(self, lease: Lease, workspace: Workspace, resumption: Resumption, holder: str = "") -> bool:
        """Run an attempt and hand its remains over; false when it was not the attempt that went wrong."""
        self._show(SlotState.BUSY)
        with working_on(request_id=lease.request_id, task_id=lease.task_id, attempt=lease.attempt):
            return self._attempt_of(lease, workspace, resumption, holder)

    def _attempt_of(self, lease: Lease, workspace: Workspace, resumption: Resumption, holder: str) -> bool:
        attempt = Attempt(self._station, lease, workspace, holder, resumption)
        with self._lock:
            self._attempt = attempt
        if self._draining.is_set():
            # Told to stop while the claim was held: the task has lost nothing yet, so it goes back at once.
            self._stop_attempt()
        well = True
        try:
            attempt.run()
        except Exception as error:  # noqa: BLE001 - The task must not be lost, nor its container run on.
            self._give_back(lease, error)
            well = False
        finally:
            with self._lock:
                self._attempt = None
        try:
            if attempt.may_still_run:
                make_way(self._station.engine, workspace, self._draining.wait)
            self._station.record.remove()
        except (AbandonedError, OSError) as error:
            # The next life finds the record, and makes way before it does anything else.
            _log.warning("the record stays behind: %s", error, extra={"action": "slot_not_ready"})
        finally:
            self._cleaner.discard(workspace, attempt.settle)
        return well

    def _show(self, state: SlotState) -> None:
        show_slot(self._station.slot.kind, state)

    def _give_back(self, lease: Lease, error: Exception) -> None:
        """Tell the server that this slot failed its task, which then runs elsewhere."""
        said = {"action": "attempt_failed_unexpectedly", "task_id": lease.task_id}
        _log.error("unexpected failure", exc_info=error, extra=said)
        failure = unexpected(error)
        try:
            persist(lambda: self._station.server.fail(lease, failure), self._draining.wait)
        except (ServerError, AbandonedError) as refusal:
            _log.warning("the lease has to run out: %s", refusal, extra=said)

    def _stop_attempt(self) -> None:
        with self._lock:
            attempt = self._attempt
        if attempt is not None:
            attempt.emit(Stopped(stop=Stop.DRAINED))

    def _leave(self) -> None:
        """Leave nothing behind."""
        self._source.close()
        if self._prepared is not None:
            self._cleaner.discard(self._prepared)
        self._cleaner.finish(_CLEANING_SECONDS)
        try:
            self._station.holder.remove()
            self._station.network.remove()
        except EngineError as error:
            _log.warning("holder or network stays behind: %s", error, extra={"action": "cleaning_failed"})


def unexpected(error: Exception) -> Failure:
    """What the server is told of a failure of the slot itself."""
    code, sentence = ReasonCode.INTERNAL_ERROR, f"The worker made a mistake ({type(error).__name__})."
    if isinstance(error, OSError):
        failing = disk_failure(error)
        code, sentence = failing.code, failing.sentence
    return Failure(reason_code=code, reason=sentence, exit_code=None, durations={})
