"""What waits in memory to be announced: bounded, so that a broker that is away costs neither time nor memory.

Requests and the upkeep put in, the publisher takes out. What does not fit is forgotten here; its row is in
the database, where the catching up finds it.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from contracts.messages import SlotKind

# Minutes of submits at a hundred a second; a few megabytes.
_MOST_WAITING = 20_000


@dataclass(frozen=True)
class Item:
    """One announcement to be made."""

    kind: SlotKind
    task_id: str


class Backlog:
    """Announcements to be made: at once in their order, or when a retried task is due."""

    def __init__(self, most: int = _MOST_WAITING, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._ready: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._numbers = count()
        # Of ``_later``, what was put in by ``put_apart``; and when the last of each kind is due.
        self._apart: set[Item] = set()
        self._apart_until: dict[SlotKind, float] = {}

    def put(self, item: Item, delay_seconds: float = 0.0) -> bool:
        """Have ``item`` announced after ``delay_seconds``; false when there is no room for it."""
        with self._lock:
            if len(self._ready) + len(self._later) >= self._most:
                return False
            if delay_seconds > 0:
                due = self._clock() + delay_seconds
                heapq.heappush(self._later, (due, next(self._numbers), item))
            else:
                self._ready.append(item)
            return True

    def put_apart(self, item: Item, gap_seconds: float) -> bool:
        """Have ``item`` announced ``gap_seconds`` from now, and after the last of its kind put in by this.

        False when there is no room for it, or when it is there already.
        """
        with self._lock:
            if item in self._apart or len(self._ready) + len(self._later) >= self._most:
                return False
            due = max(self._clock(), self._apart_until.get(item.kind, 0.0)) + gap_seconds
            self._apart_until[item.kind] = due
            self._apart.add(item)
            heapq.heappush(self._later, (due, next(self._numbers), item))
            return True

    def put_back(self, items: Iterable[Item]) -> None:
        """Have ``items`` announced before all others: the broker did not confirm them. They always fit."""
        with self._lock:
            self._ready.extendleft(reversed(list(items)))

    def take(self) -> Item | None:
        """The next announcement that is due."""
        with self._lock:
            now = self._clock()
            while self._later and self._later[0][0] <= now:
                item = heapq.heappop(self._later)[2]
                self._apart.discard(item)
                self._ready.append(item)
            return self._ready.popleft() if self._ready else None

    def seconds_until_due(self) -> float | None:
        """When ``take`` has something: 0 for now, null when nothing waits at all."""
        with self._lock:
            if self._ready:
                return 0.0
            return max(0.0, self._later[0][0] - self._clock()) if self._later else None

    def waiting(self) -> Counter[SlotKind]:
        """How many announcements are due, or put apart, by kind: their tasks could be claimed now."""
        with self._lock:
            now = self._clock()
            due = Counter(item.kind for when, _, item in self._later if when <= now or item in self._apart)
            return due + Counter(item.kind for item in self._ready)
