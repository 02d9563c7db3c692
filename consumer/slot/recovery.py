"""What a starting slot does with the attempt that its earlier life left behind.

The slot enters once, before its first claim. The heartbeat decides whether the lease is still ours; what
follows from that and from the container's state is a pure choice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from consumer.attempt.run import Resumption
from consumer.node.record import Record
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside import labels
from consumer.outside.backoff import persist
from consumer.outside.engine import ContainerFacts
from consumer.outside.errors import CallRefusedError, ServerAwayError, StaleLeaseError
from consumer.slot.cleaning import Cleaner
from contracts.messages import Heartbeat, HeartbeatAnswer
from contracts.states import Phase

_log = logging.getLogger(__name__)


class Decision(Enum):
    """What becomes of the attempt."""

    RESUME = auto()  # Its container runs or has ended: follow it to its end.
    RESTART = auto()  # The lease is ours but there is nothing to follow: run it again under the same lease.
    FORGET = auto()  # The lease is over: remove everything.


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """An attempt to go on with."""

    record: Record
    workspace: Workspace
    resumption: Resumption


def decide_recovery(*, lease_is_ours: bool, container: ContainerFacts | None, token: int) -> Decision:
    """The choice.

    A container that was created but never started is nothing to follow, and neither is another's.
    """
    if not lease_is_ours:
        return Decision.FORGET
    if container is None or not container.started or container.labels.get(labels.TOKEN) != str(token):
        return Decision.RESTART
    return Decision.RESUME


def recover(station: Station, cleaner: Cleaner, wait: Callable[[float], bool]) -> Recovered | None:
    """The attempt to go on with, if there is one; waits for the server for as long as it is away.

    Raises ``EngineError``, and ``AbandonedError`` once ``wait`` says so.
    """
    record = station.record.read()
    if record is None:
        return None
    workspace = cleaner.adopt(record.workspace_id)
    container = station.engine.find_container(workspace.container_name)
    answer = persist(lambda: _renew(station, record, container), wait)
    decision = decide_recovery(
        lease_is_ours=answer is not None, container=container, token=record.lease.token
    )
    _log.info(
        "attempt of an earlier life: %s",
        decision.name,
        extra={"action": "attempt_recovered", "task_id": record.lease.task_id, "decision": decision.name},
    )
    if decision is Decision.RESUME and answer is not None:
        resumption = Resumption(log_bytes=answer.log_bytes, container=container)
        return Recovered(record=record, workspace=workspace, resumption=resumption)
    if answer is None:
        station.record.remove()
        cleaner.discard(workspace)
        return None
    fresh = cleaner.create()
    station.record.write(Record(lease=record.lease, workspace_id=fresh.workspace_id))
    cleaner.discard(workspace)
    resumption = Resumption(log_bytes=answer.log_bytes, container=None)
    return Recovered(record=record, workspace=fresh, resumption=resumption)


def _renew(station: Station, record: Record, container: ContainerFacts | None) -> HeartbeatAnswer | None:
    """Renew the lease; None when it is over."""
    started = container is not None and container.started
    phase = Phase.RUNNING if started else Phase.FETCHING
    try:
        return station.server.heartbeat(record.lease, Heartbeat(phase=phase, wait_seconds=0.0))
    except StaleLeaseError:
        return None
    except CallRefusedError as error:
        # A revoked key, say. That is no word about the lease, so the container runs on until there is one.
        raise ServerAwayError(str(error)) from error
