"""Where a slot's next task comes from: the claim's long poll alone, or the broker's announcements before it.

The slot asks its ``WorkSource`` for a lease and knows no more. Whatever led to a claim, the claim decides.
"""

from __future__ import annotations

import math
from typing import Protocol

from consumer.node.station import Station
from consumer.outside.errors import ServerError
from consumer.outside.listener import Listener
from contracts.announcements import queue_name
from contracts.messages import ClaimRequest, Lease

# Claims that stand in for a broker are held no longer than this: it may be back, and then it is quicker.
_INTERIM_SECONDS = 4.0


class WorkSource(Protocol):
    """Gives one slot its next lease."""

    def next_lease(self) -> Lease | None:
        """Wait for a task; None when there was none for a while. Raises ``ServerError``."""
        ...

    def leave(self) -> None:
        """Let whoever waits return soon. From any thread, more than once."""
        ...

    def close(self) -> None:
        """End what the source keeps open."""
        ...


class LongPoll:
    """Waits at the claim itself."""

    def __init__(self, station: Station, most_seconds: float = math.inf) -> None:
        self._station = station
        self._wait_seconds = min(station.settings.claim_wait_seconds, most_seconds)

    def next_lease(self) -> Lease | None:
        """Wait for a task as long as the server may hold a claim."""
        return claim(self._station, self._wait_seconds)

    def leave(self) -> None:
        """A claim that is held runs out: its task must not go to a slot that has just gone."""

    def close(self) -> None:
        """Nothing is open."""


class Announcements:
    """Waits for an announcement, and claims when there is one; by long poll while the broker is away."""

    def __init__(self, station: Station, listener: Listener) -> None:
        self._station = station
        self._listener = listener
        self._long_poll = LongPoll(station, _INTERIM_SECONDS)
        self._wait_seconds = station.settings.claim_wait_seconds
        self._leaving = False
        # An announcement is not taken by who cannot claim: first the server must have let us.
        self._server_answers = False
        listener.start()

    def next_lease(self) -> Lease | None:
        """A task that was announced, or one that nobody announced."""
        if not self._listener.is_reachable:
            return None if self._leaving else self._long_poll.next_lease()
        if not self._server_answers:
            lease = self._ask()
            if lease is not None:
                return lease
        heard = self._listener.take(self._wait_seconds)
        if heard is None:
            # Now and then the server hears that this slot is there, and may know of a task that was never
            # announced.
            return None if self._leaving else self._ask()
        try:
            lease = self._ask(heard.task_id)
        except BaseException:
            self._listener.give_back(heard)
            raise
        self._listener.forget(heard)
        return lease

    def leave(self) -> None:
        """Take nothing more; whoever waits returns at once."""
        self._leaving = True
        self._listener.leave()

    def close(self) -> None:
        """Say farewell to the broker."""
        self._listener.close()

    def _ask(self, task_id: str | None = None) -> Lease | None:
        try:
            lease = claim(self._station, 0.0, task_id)
        except ServerError:
            self._server_answers = False
            raise
        self._server_answers = True
        return lease


def claim(station: Station, wait_seconds: float, task_id: str | None = None) -> Lease | None:
    """Ask the server for a task of this slot's kind."""
    return station.server.claim(
        ClaimRequest(
            node=station.settings.node,
            slot=station.slot.name,
            kinds=[station.slot.kind],
            wait_seconds=wait_seconds,
            task_id=task_id,
        )
    )


def source_of(station: Station) -> WorkSource:
    """What the settings ask for."""
    broker = station.settings.broker
    if broker is None:
        return LongPoll(station)
    name = f"consumer {station.settings.node}/{station.slot.name}"
    return Announcements(station, Listener(broker, queue_name(station.slot.kind), name))
