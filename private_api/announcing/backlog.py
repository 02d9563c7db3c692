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

    def put_back(self, items: Iterable[Item]) -> None:
        """Have ``items`` announced before all others: the broker did not confirm them. They always fit."""
        with self._lock:
            self._ready.extendleft(reversed(list(items)))

    def take(self) -> Item | None:
        """The next announcement that is due."""
        with self._lock:
            now = self._clock()
            while self._later and self._later[0][0] <= now:
                self._ready.append(heapq.heappop(self._later)[2])
            return self._ready.popleft() if self._ready else None

    def seconds_until_due(self) -> float | None:
        """When ``take`` has something: 0 for now, null when nothing waits at all."""
        with self._lock:
            if self._ready:
                return 0.0
            return max(0.0, self._later[0][0] - self._clock()) if self._later else None

    def waiting(self) -> Counter[SlotKind]:
        """How many announcements are due, by kind."""
        with self._lock:
            now = self._clock()
            due = Counter(item.kind for when, _, item in self._later if when <= now)
            return due + Counter(item.kind for item in self._ready)
