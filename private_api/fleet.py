"""What the doors ask about all nodes, or all models, together: asked of the database now and then, and kept.

A thousand nodes report, and everybody looks at queued tasks: neither may read a thousand rows each time. What
this process itself changes is seen at once, what another changed within seconds. Claims never ask here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from contracts.nodes import Wanted
from private_api.decisions.placement import NodeOffer, fits
from private_api.decisions.reporting import report_seconds
from private_api.store.database import Database
from private_api.store.models import Preparation, list_preparations
from private_api.store.nodes import list_offers

_Value = TypeVar("_Value")

_KEEP_SECONDS = 3.0
# However many there are, reading them takes this part of the time at most.
_MOST_OF_THE_TIME = 1 / 50
# A node prepares for what was changed last. With more than these it is better off waiting for tasks.
_MOST_WANTED = 50


class Fleet:
    """The nodes, and what they should have ready."""

    def __init__(self, database: Database) -> None:
        self._offers: _Kept[Sequence[NodeOffer]] = _Kept(lambda: self._read(list_offers))
        self._preparations: _Kept[Sequence[Preparation]] = _Kept(lambda: self._read(list_preparations))
        self._database = database

    def offers(self) -> Sequence[NodeOffer]:
        """What all nodes offer, those that are gone too."""
        return self._offers.value()

    def note(self, offer: NodeOffer) -> bool:
        """Take in what a node has just said; returns whether that may be news."""
        if self._offers.holds(lambda known: offer in known):
            return False
        self._offers.forget()
        return True

    def forget_nodes(self) -> None:
        """Something about nodes has changed."""
        self._offers.forget()

    def forget_models(self) -> None:
        """A model has changed."""
        self._preparations.forget()

    def report_seconds(self) -> float:
        """When a node should come again."""
        return report_seconds(sum(offer.is_present for offer in self.offers()))

    def wanted(self, offer: NodeOffer, allowed: Collection[str] | None) -> list[Wanted]:
        """What the node should have ready, of the models ``allowed`` (null: all): the last changed first."""
        found = [
            preparation.wanted
            for preparation in self._preparations.value()
            if (allowed is None or preparation.wanted.model in allowed)
            and any(fits(preparation.asked, slot) for slot in offer.slots)
        ]
        return found[:_MOST_WANTED]

    def _read(self, ask: Callable[[Any], Sequence[_Value]]) -> Sequence[_Value]:
        with self._database.read() as connection:
            return ask(connection)


class _Kept(Generic[_Value]):
    """One answer, asked for again when it is old or was forgotten."""

    def __init__(self, ask: Callable[[], _Value]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._answer: tuple[_Value, float] | None = None
        self._forgotten = 0

    def value(self) -> _Value:
        """The answer; whoever finds it too old asks, and the others wait for that."""
        with self._asking:
            with self._lock:
                known, forgotten = self._answer, self._forgotten
            if known is not None and time.monotonic() < known[1]:
                return known[0]
            began = time.monotonic()
            answer = self._ask()
            with self._lock:
                # What was forgotten while we asked may have been asked for too early.
                if forgotten == self._forgotten:
                    now = time.monotonic()
                    keep_seconds = max(_KEEP_SECONDS, (now - began) / _MOST_OF_THE_TIME)
                    self._answer = (answer, now + keep_seconds)
            return answer

    def holds(self, so: Callable[[_Value], bool]) -> bool:
        """Whether there is an answer, of any age, about which ``so`` is true."""
        with self._lock:
            known = self._answer
        return known is not None and so(known[0])

    def forget(self) -> None:
        """Ask again at the next occasion."""
        with self._lock:
            self._answer = None
            self._forgotten += 1
