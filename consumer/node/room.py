"""Room on the node's disks: whether there is enough to take a task, and what leaves when there is not.

A slot enters before it asks for work, a fetch or pull that finds no room, and the parent process once a
minute. Images that we pulled and static contents are a cache: they go, least recently used first, when a disk
is fuller than the high watermark, until it is no fuller than the low one; and at any time when something else
would not fit. What is in use stays, and so does all that others put there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from consumer.metrics import Cache, count_eviction, show_room
from consumer.node.contents import Contents
from consumer.node.eviction import DiskState, Entry, Kind, above_watermark, by_last_use, unused
from consumer.node.pulled_images import PulledImages
from consumer.node.residence import HostPaths
from consumer.node.settings import Settings
from consumer.node.usage import disk_shortage
from consumer.outside.engine import Engine
from consumer.outside.errors import ConsumerError

_log = logging.getLogger(__name__)

# Another slot that makes room does it for us as well.
_TURN_SECONDS = 60.0
# Sizes are estimates, so a disk is measured and thought over again, as long as that helps.
_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system that has to have room, and a place on it where that can be measured."""

    place: Path
    device: int

    def state(self) -> DiskState:
        """How full it is."""
        status = os.statvfs(self.place)
        size = status.f_frsize
        return DiskState(total_bytes=status.f_blocks * size, free_bytes=status.f_bavail * size)


class Room:
    """The disks of one node, for one process."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        host_paths: HostPaths,
        contents: Contents,
        images: PulledImages,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._host_paths = host_paths
        self.contents = contents
        self.images = images
        self._turn = FileLock(settings.directory / "eviction.lock")
        self._roomless = False

    def suffices(self) -> bool:
        """Whether a task may be taken, after having made room where there was none; says so at each change.

        Raises ``OSError`` and ``EngineError``.
        """
        shortage = self.shortage()
        if shortage is not None:
            for disk in self.disks:
                # Each for itself: what goes from one brings the other no room.
                self._relieve(disk, partial(self._has_room, disk))
            shortage = self.shortage()
        roomless = shortage is not None
        if roomless and not self._roomless:
            said = {"action": "node_full", "node": self._settings.node}
            _log.warning("no room for tasks, none is taken until there is: %s", shortage, extra=said)
        elif self._roomless and not roomless:
            said = {"action": "node_has_room", "node": self._settings.node}
            _log.info("there is room for tasks again", extra=said)
        self._roomless = roomless
        show_room(suffices=not roomless)
        return not roomless

    def shortage(self) -> str | None:
        """Why no task can be taken, None when one can; only looks."""
        for disk in self.disks:
            shortage = self._shortage_of(disk)
            if shortage is not None:
                return f"{shortage} ({disk.place})"
        return None

    def has_spare(self, more_bytes: int = 0) -> bool:
        """Whether the disks take something that nobody needs yet, and are below the low watermark after it.

        Only looks. Raises ``OSError`` and ``EngineError``.
        """
        low = self._settings.disk_low_percent
        states = [disk.state() for disk in self.disks]
        after = [replace(state, free_bytes=state.free_bytes - more_bytes) for state in states]
        return self.shortage() is None and all(state.used_percent < low for state in after)

    def spare_limit(self) -> int:
        """What of our own disk stays free of things that nobody needs yet: they bring none to be removed."""
        total = self._own_disk.state().total_bytes
        return max(
            self._settings.minimum_free_bytes, round(total * (1 - self._settings.disk_high_percent / 100))
        )

    def _shortage_of(self, disk: Disk) -> str | None:
        return disk_shortage(disk.place, self._settings.minimum_free_bytes)

    def _has_room(self, disk: Disk) -> bool:
        return self._shortage_of(disk) is None

    def relieve(self, enough: Callable[[], bool]) -> None:
        """Make room where our directory lies until ``enough()``, as far as that goes; raises nothing."""
        try:
            self._relieve(self._own_disk, enough)
        except (ConsumerError, OSError) as error:
            _log.warning("making room failed: %s", error, extra={"action": "eviction_failed"})

    def relieve_engine(self) -> bool:
        """Make room for a pull of unknown size: down to the low watermark; says whether anything has gone."""
        disk = self._engine_disk
        if disk is None:
            return False
        gone: list[Entry] = []

        def enough() -> bool:
            return bool(gone) and disk.state().used_percent <= self._settings.disk_low_percent

        try:
            self._relieve(disk, enough, gone)
        except (ConsumerError, OSError) as error:
            _log.warning("making room failed: %s", error, extra={"action": "eviction_failed"})
        return bool(gone)

    def tidy(self) -> None:
        """Remove what nobody has used for long and what a disk is too full for.

        Raises ``EngineError`` and ``OSError``; does nothing while another process is at it.
        """
        with suppress(Timeout), self._turn.acquire(timeout=0):
            self.contents.sweep()
            self.images.sweep()
            now = time.time()
            contents = self.contents.entries(sized=False)
            self._evict(unused(contents, now, self._settings.content_unused_seconds))
            for disk in self.disks:
                self._lower(disk, now)

    @cached_property
    def disks(self) -> list[Disk]:
        """Ours, and the engine's where that is another one that can be seen."""
        other = self._engine_disk
        same = other is None or other.device == self._own_disk.device
        return [self._own_disk] if same or other is None else [self._own_disk, other]

    @cached_property
    def _own_disk(self) -> Disk:
        return _disk(self._settings.directory)

    @cached_property
    def _engine_disk(self) -> Disk | None:
        """Where the engine keeps images and writable layers; None where that cannot be seen from here."""
        root = self._engine.host().data_root
        theirs, ours = self._host_paths.on_host, self._host_paths.ours
        if theirs == PurePosixPath(ours):
            place = Path(root) if root else None
        else:
            # A named volume of ours lies where the engine keeps everything; its own paths mean nothing here.
            place = ours if root and theirs.is_relative_to(root) else None
        with suppress(OSError):
            if place is not None:
                return _disk(place)
        said = {"action": "engine_disk_unseen"}
        _log.warning("the engine's disk cannot be seen from here: no image is removed for room", extra=said)
        return None

    def _lower(self, disk: Disk, now: float) -> None:
        high, low = self._settings.disk_high_percent, self._settings.disk_low_percent
        for _ in range(_ROUNDS):
            state = disk.state()
            if state.used_percent <= high:
                return
            if not self._evict(above_watermark(self._entries(disk), state, high, low, now)):
                return
            # From now on it is on its way down.
            high = low

    def _relieve(self, disk: Disk, enough: Callable[[], bool], gone: list[Entry] | None = None) -> None:
        with suppress(Timeout), self._turn.acquire(timeout=_TURN_SECONDS):
            for entry in by_last_use(self._entries(disk)):
                if enough():
                    return
                found = self._evict([entry])
                if gone is not None:
                    gone += found

    def _entries(self, disk: Disk) -> list[Entry]:
        entries = self.contents.entries()
        if self._engine_disk is not None:
            entries += self.images.entries(self._engine_disk.device)
        return [entry for entry in entries if entry.disk == disk.device]

    def _evict(self, entries: Iterable[Entry]) -> list[Entry]:
        """Remove these, but for those that somebody uses; returns what has gone."""
        gone: list[Entry] = []
        for entry in entries:
            remove = self.contents.remove if entry.kind is Kind.CONTENT else self.images.remove
            if remove(entry.name):
                gone.append(entry)
                count_eviction(Cache(entry.kind))
                said = {"action": "evicted", "bytes": entry.size_bytes, "outcome": entry.kind.value}
                _log.info("removed %s %s from this node", entry.kind.value, entry.name, extra=said)
        return gone


def _disk(place: Path) -> Disk:
    return Disk(place=place, device=place.stat().st_dev)
