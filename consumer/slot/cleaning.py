"""Removing what attempts leave behind, off the path on which somebody waits for a result.

The slot hands finished attempts over; a thread removes their containers, volumes and directories, and each
minute looks for leftovers that nobody handed over (of an earlier life, or of an engine that was away). Only
what carries this slot's own labels, or lies in its own directory, is ever touched.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread

from consumer.node.workspace import Workspace, Workspaces, remove_tree
from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import EngineError
from consumer.outside.labels import Owner

_log = logging.getLogger(__name__)

SWEEP_SECONDS = 60.0
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
        self._workspaces.create(workspace)
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

    def sweep(self) -> None:
        """Remove everything of this slot's that is not in use; raises ``EngineError``."""
        # First what exists, then what is in use: whatever is made in between is in both or in neither.
        found = self._workspaces.found()
        with self._lock:
            leftovers = found - self._in_use
        for workspace_id in leftovers:
            _log.info("leftover removed", extra={"action": "leftover_removed", "workspace": workspace_id})
            self._workspaces.remove(self._workspaces.named(workspace_id))

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=SWEEP_SECONDS)
            except Empty:
                self._try(self.sweep)
                continue
            if item is None:
                return
            workspace, settle = item
            settle(SETTLE_SECONDS)
            self._try(partial(self._remove, workspace))

    def _remove(self, workspace: Workspace) -> None:
        try:
            self._workspaces.remove(workspace)
        finally:
            # Whatever is left of it is a leftover now, and the next sweep's.
            with self._lock:
                self._in_use.discard(workspace.workspace_id)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EngineError as error:
            _log.warning("cleaning failed: %s", error, extra={"action": "cleaning_failed"})
        except Exception:  # noqa: BLE001 - The thread must live: without it leftovers would pile up.
            _log.exception("cleaning failed unexpectedly", extra={"action": "cleaning_failed"})


def remove_other_slots(engine: Engine, owner: Owner, directory: Path, slots: set[str]) -> None:
    """Remove what slots left that this node does not have any more; their leases end by themselves.

    Slots of other nodes and installations, and contents, which belong to no slot, are left alone.
    """
    mine = owner.shared_labels()
    for container in engine.list_containers(mine):
        if container.labels.get(labels.SLOT, "") not in slots | {""}:
            engine.remove_container(container.name)
    for volume in engine.list_volumes(mine):
        if volume.labels.get(labels.SLOT, "") not in slots | {""}:
            engine.remove_volume(volume.name)
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name not in slots:
            remove_tree(path)
