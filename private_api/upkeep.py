"""The thread that sees to what must happen by itself: the reaper every two seconds, the sweeper more rarely.

Several processes may run it at once; every change it makes is conditional.
"""

from __future__ import annotations

import logging
import threading
from itertools import islice

from contracts.timing import REAP_SECONDS
from private_api.bell import task_topic
from private_api.decisions.phases import must_grant_period
from private_api.http.leases import announce_end
from private_api.http.services import Services
from private_api.store.idempotency import forget_older_than
from private_api.store.upkeep import (
    fail_queued_too_long,
    grant_full_period,
    purge_expired,
    reap,
    since_last,
    unused_among,
)

_log = logging.getLogger(__name__)

_SWEEP_SECONDS = 60.0
# An upload may be under way, or its task about to be committed, for as long as this and no longer.
_ORPHAN_SECONDS = 24 * 3600.0
_REMEMBERED_MS = 48 * 3600 * 1000
_SWEPT_AT_ONCE = 500


def start_upkeep(services: Services) -> threading.Thread:
    """Begin the upkeep of this process; it ends when the services are told to stop."""
    thread = threading.Thread(target=_run, args=(services,), name="upkeep", daemon=True)
    thread.start()
    return thread


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


def sweep_once(services: Services) -> None:
    """One pass of the sweeper: data past its retention, blobs that no row knows, answers nobody repeats."""
    with services.database.write() as connection:
        garbage = purge_expired(connection)
        forget_older_than(connection, _REMEMBERED_MS)
    for key in garbage:
        services.blobs.delete(key)
    services.blobs.sweep_unfinished(_ORPHAN_SECONDS)
    keys = services.blobs.keys_older_than(_ORPHAN_SECONDS)
    while batch := list(islice(keys, _SWEPT_AT_ONCE)):
        with services.database.read() as connection:
            orphans = unused_among(connection, batch)
        for key in orphans:
            services.blobs.delete(key)


def _run(services: Services) -> None:
    passes_until_sweep = 0
    while not services.stopping.wait(REAP_SECONDS):
        try:
            reap_once(services)
            passes_until_sweep -= 1
            if passes_until_sweep < 0:
                sweep_once(services)
                passes_until_sweep = int(_SWEEP_SECONDS / REAP_SECONDS)
        except Exception:  # noqa: BLE001 - This thread must outlive whatever a driver may raise.
            # The database or the disk may be away for a while; the next pass tries again.
            _log.exception("upkeep failed", extra={"action": "upkeep_failed"})
