"""The threads that see to what must happen by itself: the reaper every two seconds, the others more rarely.

Several processes may run it at once; every change it makes is conditional.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import islice

from contracts.reasons import ReasonCode
from contracts.states import TaskState
from contracts.timing import REAP_SECONDS
from private_api.bell import task_topic
from private_api.blobs.store import BlobStoreUnavailableError, discard
from private_api.decisions.phases import must_grant_period
from private_api.http.leases import announce_end
from private_api.http.services import Services
from private_api.metrics import LEASES_EXPIRED, count_finished
from private_api.store.database import AWAY_ERRORS, reason_of
from private_api.store.idempotency import forget_older_than
from private_api.store.references import unused_among
from private_api.store.retention import purge_expired
from private_api.store.upkeep import fail_queued_too_long, grant_full_period, reap, since_last
from serving.logs import working_on

_log = logging.getLogger(__name__)

_PURGE_SECONDS = 30.0
_SWEEP_SECONDS = 3600.0
# An upload may be under way, or its task about to be committed, for as long as this and no longer.
_ORPHAN_SECONDS = 24 * 3600.0
_REMEMBERED_MS = 48 * 3600 * 1000
_SWEPT_AT_ONCE = 500


def start_upkeep(services: Services) -> None:
    """Begin the upkeep of this process; it ends when the services are told to stop."""
    for duty, seconds in (
        (reap_once, REAP_SECONDS),
        (purge_once, _PURGE_SECONDS),
        (sweep_once, _SWEEP_SECONDS),
    ):
        # One thread each: a sweep through a million blobs must not keep the reaper from its leases.
        threading.Thread(
            target=_repeat, args=(services, duty, seconds), name=duty.__name__, daemon=True
        ).start()


def reap_once(services: Services) -> None:
    """One pass of the reaper."""
    with services.database.write() as connection:
        gap = since_last(connection, "reap")
        if must_grant_period(since_last_pass_seconds=gap, pass_seconds=REAP_SECONDS):
            grant_full_period(connection)
        ends = reap(connection, services.retention)
        limit_ms = int(services.settings.queued_limit_seconds * 1000)
        expired = fail_queued_too_long(connection, limit_ms, services.retention) if limit_ms else []
    for end in ends:
        if end.reason_code is ReasonCode.WORKER_LOST:
            LEASES_EXPIRED.inc()
        said = {"action": "reaped", "task_id": end.task_id, "attempt": end.attempt}
        with working_on(request_id=end.request_id):
            _log.warning("an attempt was taken back", extra=said)
        announce_end(services, end)
    count_finished(TaskState.FAILED, ReasonCode.QUEUED_TOO_LONG, len(expired))
    for task_id in expired:
        services.bell.ring(task_topic(task_id))


def purge_once(services: Services) -> None:
    """Part with all data past its retention, and with what uploads left behind that were cut off."""
    found = 1
    while found and not services.stopping.is_set():
        with services.database.write() as connection:
            found, garbage = purge_expired(connection)
        discard(services.blobs, garbage)
    # Last, because not every S3 store lists uploads, nor lets everybody ask: nothing is kept longer for that.
    services.blobs.sweep_unfinished()


def sweep_once(services: Services) -> None:
    """One pass of the sweeper: blobs that nothing needs, answers that nobody repeats."""
    forgotten = 1
    while forgotten and not services.stopping.is_set():
        with services.database.write() as connection:
            forgotten = forget_older_than(connection, _REMEMBERED_MS)
    keys = services.blobs.keys_older_than(_ORPHAN_SECONDS)
    while batch := list(islice(keys, _SWEPT_AT_ONCE)):
        with services.database.read() as connection:
            orphans = unused_among(connection, batch)
        for key in orphans:
            services.blobs.delete(key)


def _repeat(services: Services, duty: Callable[[Services], None], seconds: float) -> None:
    away = False
    while not services.stopping.wait(seconds):
        try:
            duty(services)
        except (*AWAY_ERRORS, BlobStoreUnavailableError) as error:
            if not away:
                _log.warning("upkeep waits: %s", reason_of(error), extra={"action": duty.__name__})
            away = True
        except Exception:  # noqa: BLE001 - This thread must outlive whatever a driver may raise.
            # The disk may be full or away for a while; the next pass tries again.
            _log.exception("upkeep failed", extra={"action": duty.__name__})
        else:
            away = False
