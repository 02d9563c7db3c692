"""What a starting slot does with the attempt that its earlier life left behind.

The slot enters once, before its first claim. A container that can be followed is followed at once, server or
no server: its limits hold whoever is away, and its attempt's heartbeat hears whether the lease is still ours.
Only where there is nothing to follow is the server asked first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from consumer.attempt.run import Resumption
from consumer.node.record import Record
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside import labels
from consumer.outside.backoff import persist
from consumer.outside.engine import ContainerFacts
from consumer.outside.errors import CallRefusedError, ServerAwayError, StaleLeaseError
from consumer.slot.cleaning import Cleaner, make_way
from contracts.messages import Heartbeat, HeartbeatAnswer
from contracts.states import Phase

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """An attempt to go on with."""

    record: Record
    workspace: Workspace
    resumption: Resumption


def can_be_followed(container: ContainerFacts | None, token: int) -> bool:
    """Whether a container is to be followed to its end, or has ended already.

    One that was created but never started is nothing to follow, and neither is another lease's.
    """
    return container is not None and container.started and container.labels.get(labels.TOKEN) == str(token)


def recover(station: Station, cleaner: Cleaner, wait: Callable[[float], bool]) -> Recovered | None:
    """The attempt to go on with, if there is one; where it has to begin again, nothing of it runs any more.

    Raises ``EngineError``, ``OSError``, and ``AbandonedError`` once ``wait`` says so.
    """
    record = station.record.read()
    if record is None:
        return None
    workspace = cleaner.adopt(record.workspace_id)
    container = station.engine.find_container(workspace.container_name)
    if can_be_followed(container, record.lease.token):
        _say(record, "followed")
        resumption = Resumption(log_begins_at=record.log_begins_at, container=container, ending=record.ending)
        return Recovered(record=record, workspace=workspace, resumption=resumption)
    make_way(station.engine, workspace, wait)
    answer = persist(lambda: _renew(station, record), wait)
    if answer is None:
        _say(record, "forgotten")
        station.record.remove()
        cleaner.discard(workspace)
        return None
    _say(record, "begun again")
    fresh = cleaner.create()
    again = Record(lease=record.lease, workspace_id=fresh.workspace_id, log_begins_at=answer.log_bytes)
    try:
        station.record.write(again)
    except OSError:
        # It is tried again, each time with a workspace of its own.
        cleaner.discard(fresh)
        raise
    cleaner.discard(workspace)
    return Recovered(record=again, workspace=fresh, resumption=Resumption(log_begins_at=answer.log_bytes))


def _say(record: Record, outcome: str) -> None:
    said = {"action": "attempt_recovered", "task_id": record.lease.task_id, "decision": outcome}
    _log.info("attempt of an earlier life: %s", outcome, extra=said)


def _renew(station: Station, record: Record) -> HeartbeatAnswer | None:
    """Renew the lease; None when it is over."""
    try:
        return station.server.heartbeat(record.lease, Heartbeat(phase=Phase.FETCHING, wait_seconds=0.0))
    except StaleLeaseError:
        return None
    except CallRefusedError as error:
        # A revoked key, say. That is no word about the lease, so it waits until there is one.
        raise ServerAwayError(str(error)) from error
