"""Removing what attempts leave behind, off the path on which somebody waits for a result.

The slot hands finished attempts over; a thread removes their containers, volumes and directories. When a
minute has passed since it last looked, however busy the slot is, it looks for leftovers that nobody handed
over (of an earlier life, or of an engine that was away). Only what carries this slot's own labels, or lies in
its own directory, is ever touched.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread

from consumer.node.workspace import Workspace, Workspaces, remove_tree
from consumer.outside import labels
from consumer.outside.backoff import delays
from consumer.outside.engine import Engine, Labelled
from consumer.outside.errors import AbandonedError, EngineError
from consumer.outside.labels import Owner, is_ours

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
# An engine that is away is back soon, or away for long: what it could not remove goes when it is back.
RETRY_SECONDS = 5.0
# A slot that finishes tasks faster than the engine removes containers waits here, so leftovers stay few.
BACKLOG = 4
# Threads of an abandoned attempt may still write; after this long the sweep has to see to it.
SETTLE_SECONDS = 40.0

_Settle = Callable[[float], None]


class Cleaner:
    """One slot's cleaner. A workspace is in use from ``adopt`` until ``discard``."""

    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces
        self._in_use: set[str] = set()
        self._lock = Lock()
        self._queue: Queue[tuple[Workspace, _Settle] | None] = Queue(BACKLOG)
        self._thread = Thread(target=self._run, name="cleaner", daemon=True)

    def start(self) -> None:
        """Begin to clean in the background."""
        self._thread.start()

    def create(self) -> Workspace:
        """A new workspace that no sweep will take for a leftover."""
        workspace = self.adopt(secrets.token_hex(8))
        try:
            self._workspaces.create(workspace)
        except BaseException:
            self._release(workspace)
            raise
        return workspace

    def adopt(self, workspace_id: str) -> Workspace:
        """The workspace with this id, which no sweep will take for a leftover from now on."""
        with self._lock:
            self._in_use.add(workspace_id)
        return self._workspaces.named(workspace_id)

    def discard(self, workspace: Workspace, settle: _Settle = lambda _seconds: None) -> None:
        """Have a workspace removed, after ``settle(seconds)``; waits while too many are waiting already."""
        self._queue.put((workspace, settle))

    def finish(self, seconds: float) -> None:
        """Remove what was handed over, then end; waits so long at most."""
        self._queue.put(None)
        self._thread.join(seconds)

    def leftovers(self) -> list[Workspace]:
        """What this slot has on the engine or the disk and nobody uses; raises ``EngineError``."""
        # First what exists, then what is in use: whatever is made in between is in both or in neither.
        found = self._workspaces.found()
        with self._lock:
            unused = found - self._in_use
        return [self._workspaces.named(workspace_id) for workspace_id in sorted(unused)]

    def sweep(self) -> None:
        """Remove all leftovers; raises ``EngineError`` once all that can be removed have gone."""
        kept: EngineError | None = None
        for workspace in self.leftovers():
            try:
                removed = self._workspaces.remove(workspace)
            except EngineError as error:
                # One that the engine cannot let go must not keep the others.
                kept = error
                continue
            if removed:
                said = {"action": "leftover_removed", "workspace": workspace.workspace_id}
                _log.info("leftover removed", extra=said)
        if kept is not None:
            raise kept

    def _run(self) -> None:
        sweep_at = time.monotonic() + SWEEP_SECONDS
        while True:
            with suppress(Empty):
                item = self._queue.get(timeout=max(0.0, sweep_at - time.monotonic()))
                if item is None:
                    return
                workspace, settle = item
                self._try(partial(settle, SETTLE_SECONDS))
                if not self._try(partial(self._remove, workspace)):
                    sweep_at = min(sweep_at, time.monotonic() + RETRY_SECONDS)
            if time.monotonic() >= sweep_at:
                swept = self._try(self.sweep)
                sweep_at = time.monotonic() + (SWEEP_SECONDS if swept else RETRY_SECONDS)

    def _remove(self, workspace: Workspace) -> None:
        try:
            self._workspaces.remove(workspace)
        finally:
            # Whatever is left of it is a leftover now, and the next sweep's.
            self._release(workspace)

    def _release(self, workspace: Workspace) -> None:
        with self._lock:
            self._in_use.discard(workspace.workspace_id)

    def _try(self, work: Callable[[], None]) -> bool:
        """Whether it went well."""
        try:
            work()
        except EngineError as error:
            _log.warning("cleaning failed: %s", error, extra={"action": "cleaning_failed"})
            return False
        except Exception:  # noqa: BLE001 - The thread must live: without it leftovers would pile up.
            _log.exception("cleaning failed unexpectedly", extra={"action": "cleaning_failed"})
            return False
        return True


def make_way(engine: Engine, workspace: Workspace, wait: Callable[[float], bool]) -> None:
    """Remove a workspace's container and return once it is gone, so that no second model runs beside it.

    ``wait(seconds)`` pauses and returns true when nothing is to run any more; raises ``AbandonedError`` then.
    """
    for pause in delays():
        try:
            engine.remove_container(workspace.container_name)
            # The engine also accepts to remove what it is removing already, or cannot kill.
            if engine.find_container(workspace.container_name) is None:
                return
            reason = "it is still there"
        except EngineError as error:
            reason = str(error)
        said = {"action": "slot_not_ready", "workspace": workspace.workspace_id}
        _log.warning("the last container is not gone: %s", reason, extra=said)
        if wait(pause):
            raise AbandonedError("a container stays behind for the next life")


def remove_other_slots(engine: Engine, owner: Owner, directory: Path, slots: set[str]) -> None:
    """Remove what slots left that this node does not have any more; their leases end by themselves.

    Slots of other nodes and installations, and contents, which belong to no slot, are left alone.
    """
    mine = owner.shared_labels()

    def is_leftover(found: Labelled) -> bool:
        kept = found.labels.get(labels.SLOT, "") in slots | {""}
        return not kept and is_ours(found.given_name, found.labels, mine)

    for container in filter(is_leftover, engine.list_containers(mine)):
        _remove_or_leave(partial(engine.remove_container, container.name))
    for volume in filter(is_leftover, engine.list_volumes(mine)):
        _remove_or_leave(partial(engine.remove_volume, volume.name))
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name not in slots:
            _remove_or_leave(partial(remove_tree, path))


def _remove_or_leave(remove: Callable[[], None]) -> None:
    """What the engine keeps must not keep the whole node from starting; its next start tries again."""
    try:
        remove()
    except EngineError as error:
        _log.warning("cleaning failed: %s", error, extra={"action": "cleaning_failed"})
