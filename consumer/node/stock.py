"""Having models' images and contents here before a task asks for them: a thread of the parent process.

The reporter enters with what the server wants this node to have. One thing comes at a time, and only while
the disks are so empty that nothing has to leave for it. A task fetches what it needs itself, and waits for
nothing here but the very thing that is on its way.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from threading import Condition, Event, Thread, Timer

from consumer.node.fetching import Allowance
from consumer.node.images import tagged
from consumer.node.room import Room
from consumer.node.settings import Settings
from consumer.outside.calls import NodeCalls
from consumer.outside.engine import Engine
from consumer.outside.errors import AbandonedError, ConsumerError, PreventedError, ServerAwayError
from contracts.messages import BlobFacts, ImageSpec, PullPolicy
from contracts.nodes import Wanted
from contracts.reasons import ReasonCode

_log = logging.getLogger(__name__)

# After a failure, and between two looks at a disk that had no room.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 900.0
# What was here and has left made room for something else: it would only do so again.
_EVICTED_SECONDS = 3600.0
_LOOK_SECONDS = 10.0
_LEAVE_SECONDS = 2.0
# Models go first: Linux knows such a wish for each thread.
_NICENESS = 15


@dataclass(frozen=True)
class Item:
    """One thing to have: a model's image, or its content."""

    model: str
    what: ImageSpec | BlobFacts

    @property
    def key(self) -> str:
        """The same for all models that need it."""
        if isinstance(self.what, BlobFacts):
            return f"content {self.what.sha256}"
        return f"image {self.what.image_id or self.what.tag}"


class Patience:
    """When each thing may be tried (again): a pure book of times, by ``key``."""

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def may(self, key: str, now: float) -> bool:
        """Whether its time has come."""
        return now >= self._not_before.get(key, now)

    def failed(self, key: str, now: float) -> float:
        """It did not go well; returns in how many seconds it may be tried again."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(_FIRST_PAUSE_SECONDS * float(1 << min(failures - 1, 20)), _LONGEST_PAUSE_SECONDS)
        self._not_before[key] = now + pause
        return pause

    def here(self, key: str, now: float) -> None:
        """It is here; should it leave, then to make room."""
        self._failures.pop(key, None)
        self._not_before[key] = now + _EVICTED_SECONDS

    def forget_others(self, keys: set[str]) -> None:
        """Nobody wants any but these."""
        for book in (self._not_before, self._failures):
            for key in set(book) - keys:
                del book[key]


def items_of(wanted: Sequence[Wanted]) -> list[Item]:
    """What to have, each thing once: of each model first its image, then its content."""
    found: dict[str, Item] = {}
    for each in wanted:
        # What is here will do: only a task asks a registry whether there is something newer.
        image = replace(each.image, pull_policy=PullPolicy.IF_MISSING)
        for what in (image, each.content):
            if what is not None:
                item = Item(each.model, what)
                found.setdefault(item.key, item)
    return list(found.values())


class Stock:
    """``reach`` builds the way to the server, which may fail at first."""

    def __init__(
        self, settings: Settings, engine: Engine, room: Room, reach: Callable[[], NodeCalls]
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._room = room
        self._reach = reach
        self._changed = Condition()
        self._items: list[Item] = []
        self._current: Event | None = None
        self._leaving = False
        self._patience = Patience()
        self._thread = Thread(target=self._run, name="stock", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Have these from now on, and no others."""
        with self._changed:
            self._items = items_of(wanted)
            self._changed.notify_all()

    def leave(self) -> None:
        """Break off what is on its way; a later life removes what is left of it."""
        with self._changed:
            self._leaving = True
            if self._current is not None:
                self._current.set()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            with self._changed:
                if self._leaving:
                    return
                items = list(self._items)
            try:
                worked = self._step(items)
            except Exception:  # noqa: BLE001 - The thread must live; tasks fetch for themselves meanwhile.
                _log.exception("stocking failed unexpectedly", extra={"action": "stocking_failed"})
                worked = False
            with self._changed:
                if not worked and not self._leaving and items == self._items:
                    self._changed.wait(_LOOK_SECONDS)

    def _step(self, items: list[Item]) -> bool:
        """Fetch the first thing that is missing and may come; whether one was tried."""
        self._patience.forget_others({item.key for item in items})
        for item in items:
            now = time.monotonic()
            try:
                if self._is_here(item):
                    self._patience.here(item.key, now)
                    continue
                if not self._patience.may(item.key, now) or not self._room.has_spare(_size(item)):
                    continue
                self._fetch(item)
            except AbandonedError:
                return False
            except (ConsumerError, OSError) as error:
                pause = self._patience.failed(item.key, time.monotonic())
                said = {"action": "stocking_failed", "model": item.model}
                _log.warning("%s is not here yet: %s; again in %.0f s", item.key, error, pause, extra=said)
            else:
                self._patience.here(item.key, time.monotonic())
                said = {"action": "stocked", "model": item.model}
                _log.info("%s is here before it is needed", item.key, extra=said)
            return True
        return False

    def _is_here(self, item: Item) -> bool:
        if isinstance(item.what, BlobFacts):
            return self._room.contents.has(item.what.sha256)
        return self._engine.find_image(item.what.image_id or tagged(item.what.tag)) is not None

    def _fetch(self, item: Item) -> None:
        is_content = isinstance(item.what, BlobFacts)
        seconds = self._settings.fetch_seconds if is_content else self._settings.pull_seconds
        abandoned = Event()
        with self._changed:
            if self._leaving:
                raise AbandonedError("we leave")
            self._current = abandoned
        timer = Timer(seconds, abandoned.set)
        timer.daemon = True
        timer.start()
        try:
            with ExitStack() as uses:
                if isinstance(item.what, BlobFacts):
                    self._fetch_content(item.what, abandoned, uses)
                else:
                    self._room.images.use(item.what, abandoned, uses, pulling=lambda: None)
        except AbandonedError:
            if self._leaving:
                raise
            raise PreventedError(ReasonCode.PULL_FAILED, f"it took longer than {seconds:g} s") from None
        finally:
            timer.cancel()
            with self._changed:
                self._current = None

    def _fetch_content(self, facts: BlobFacts, abandoned: Event, uses: ExitStack) -> None:
        server = self._reach()

        def stream() -> Iterator[bytes]:
            try:
                yield from server.open_node_content(self._settings.node, facts.sha256)
            except ServerAwayError as error:
                # Once is enough: a task that needs it now must not wait until a later try of ours.
                raise PreventedError(ReasonCode.STORAGE_FAILED, str(error)) from error

        # Nothing leaves for what nobody has asked for yet.
        allowance = Allowance(keep_free_bytes=self._room.spare_limit())
        self._room.contents.use(facts, stream, abandoned, uses, allowance, counted=False)


def _size(item: Item) -> int:
    # What an image takes, only its registry knows.
    return item.what.size_bytes if isinstance(item.what, BlobFacts) else 0
