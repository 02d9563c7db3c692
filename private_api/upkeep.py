"""The threads that see to what must happen by itself: the reaper every two seconds, the others more rarely.

Several processes may run it at once; every change it makes is conditional.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import islice

from contracts.timing import REAP_SECONDS
from private_api.bell import task_topic
from private_api.decisions.phases import must_grant_period
from private_api.http.leases import announce_end
from private_api.http.services import Services
from private_api.store.idempotency import forget_older_than
from private_api.store.references import unused_among
from private_api.store.upkeep import (
    fail_queued_too_long,
    grant_full_period,
    purge_expired,
    reap,
    since_last,
)

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
        ends = reap(connection, services.retention_ms)
        limit_ms = int(services.settings.queued_limit_seconds * 1000)
        expired = fail_queued_too_long(connection, limit_ms, services.retention_ms) if limit_ms else []
    for end in ends:
        _log.warning("an attempt was taken back", extra={"action": "reaped", "task_id": end.task_id})
        announce_end(services, end)
    for task_id in expired:
        services.bell.ring(task_topic(task_id))


def purge_once(services: Services) -> None:
    """Part with all data past its retention, and with what uploads left behind that were cut off."""
    services.blobs.sweep_unfinished()
    found = 1
    while found and not services.stopping.is_set():
        with services.database.write() as connection:
            found, garbage = purge_expired(connection)
        for key in garbage:
            services.blobs.delete(key)


def sweep_once(services: Services) -> None:
    """One pass of the sweeper: blobs that nothing needs, answers that nobody repeats."""
    with services.database.write() as connection:
        forget_older_than(connection, _REMEMBERED_MS)
    keys = services.blobs.keys_older_than(_ORPHAN_SECONDS)
    while batch := list(islice(keys, _SWEPT_AT_ONCE)):
        with services.database.read() as connection:
            orphans = unused_among(connection, batch)
        for key in orphans:
            services.blobs.delete(key)


def _repeat(services: Services, duty: Callable[[Services], None], seconds: float) -> None:
    while not services.stopping.wait(seconds):
        try:
            duty(services)
        except Exception:  # noqa: BLE001 - This thread must outlive whatever a driver may raise.
            # The database or the disk may be away for a while; the next pass tries again.
            _log.exception("upkeep failed", extra={"action": duty.__name__})
