"""Where a slot's next task comes from: the claim's long poll alone, or the broker's announcements before it.

The slot asks its ``WorkSource`` for a lease and knows no more. Whatever led to a claim, the claim decides.
"""

from __future__ import annotations

import math
import random
from threading import Condition
from typing import Protocol

from consumer.node.station import Station
from consumer.outside.errors import ServerError
from consumer.outside.listener import Listener
from contracts.announcements import queue_name
from contracts.messages import ClaimRequest, Lease, Withdrawal

# How long a withdrawn claim's answer may take before the withdrawal is repeated.
_WITHDRAW_SECONDS = 0.5
_SHORTEST_PART = 0.75
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
        self._changed = Condition()
        self._asking = False
        self._leaving = False

    def next_lease(self) -> Lease | None:
        """Wait for a task as long as the server may hold a claim."""
        with self._changed:
            if self._leaving:
                return None
            self._asking = True
        try:
            # Of different lengths: after an outage a thousand claims begin together, and would for ever.
            return claim(self._station, self._wait_seconds * random.uniform(_SHORTEST_PART, 1.0))  # noqa: S311 - No secret.
        finally:
            with self._changed:
                self._asking = False
                self._changed.notify_all()

    def leave(self) -> None:
        """Have a claim that is held answered now, with or without a task; one that cannot be runs out.

        Hanging up instead would lose a task that is on its way for as long as its lease lasts.
        """
        with self._changed:
            self._leaving = True
        withdrawal = Withdrawal(node=self._station.settings.node, slot=self._station.slot.name)
        while self._asking:
            try:
                self._station.server.withdraw(withdrawal)
            except ServerError:
                return
            with self._changed:
                # Asked again: the claim may have been on its way still, or another process have it.
                self._changed.wait_for(lambda: not self._asking, _WITHDRAW_SECONDS)

    def close(self) -> None:
        """Nothing is open."""


class Announcements:
    """Waits for an announcement, and claims when there is one; by long poll while the broker is away."""

    def __init__(self, station: Station, listener: Listener) -> None:
        self._station = station
        self._listener = listener
        self._long_poll = LongPoll(station, _INTERIM_SECONDS)
        # Then it asks without having heard. More often would cost: a thousand slots at 10 s are two thirds of
        # a core of the private API, at 25 s a third.
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
        self._long_poll.leave()

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
