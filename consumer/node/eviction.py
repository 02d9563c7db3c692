"""What has to leave a disk: pure choices, from what lies there and how full it is.

``room.py`` enters, measures and removes. What is in use is not its concern: who removes a thing finds out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# A thing that was used a moment ago is likely to be asked for again at once: a disk that others have filled
# must not make every task fetch it anew. Where there is no room at all, it goes all the same.
SETTLED_SECONDS = 120.0


class Kind(StrEnum):
    """What can be had again."""

    CONTENT = "content"
    IMAGE = "image"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cached thing: ``disk`` says where it lies, ``last_used`` is a Unix time."""

    kind: Kind
    name: str
    size_bytes: int
    last_used: float
    disk: int


@dataclass(frozen=True, kw_only=True)
class DiskState:
    """How full a disk is; ``free_bytes`` is what is left for us."""

    total_bytes: int
    free_bytes: int

    @property
    def used_percent(self) -> float:
        """How full it is."""
        return 100.0 * (1 - self.free_bytes / self.total_bytes) if self.total_bytes else 0.0


def by_last_use(entries: Iterable[Entry]) -> list[Entry]:
    """The order in which things go: least recently used first, of two the larger."""
    return sorted(entries, key=lambda entry: (entry.last_used, -entry.size_bytes, entry.name))


def unused(entries: Iterable[Entry], now: float, unused_seconds: float) -> list[Entry]:
    """The contents that no task has used for so long; images go for want of room only."""
    return [
        entry
        for entry in by_last_use(entries)
        if entry.kind is Kind.CONTENT and now - entry.last_used > unused_seconds
    ]


def above_watermark(
    entries: Iterable[Entry], disk: DiskState, high_percent: float, low_percent: float, now: float
) -> list[Entry]:
    """What must go so that a disk above the high watermark is below the low one; all there is, where less.

    Sizes are estimates, since images share layers: whoever removes these measures again afterwards.
    """
    if disk.used_percent <= high_percent:
        return []
    excess = disk.total_bytes * (1 - low_percent / 100) - disk.free_bytes
    chosen: list[Entry] = []
    for entry in by_last_use(entries):
        if excess <= 0:
            break
        if now - entry.last_used >= SETTLED_SECONDS:
            chosen.append(entry)
            excess -= entry.size_bytes
    return chosen
