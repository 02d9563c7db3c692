"""Everything that looks at a running container: its exit, its log, its limits and its progress.

An attempt makes one when its container has been created, or found again after a restart of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from consumer.attempt.events import Emit, Exited
from consumer.attempt.logs import LogFollower
from consumer.attempt.preparation import producer
from consumer.attempt.sandbox import PROGRESS_FILE
from consumer.attempt.watch import Watch, Watched
from consumer.node.station import Station
from consumer.node.workspace import Workspace
from consumer.outside.engine import Engine, ExitWatch
from consumer.outside.errors import EngineAwayError, EngineError
from contracts.messages import Lease, Progress, SandboxProfile

# How long an engine may be away before its containers are given up. An engine that is set to keep
# containers alive while it restarts is back within this time, and one that is not has killed them.
ENGINE_PATIENCE_SECONDS = 15.0
_ENGINE_PAUSE_SECONDS = 0.5


class Observation:
    """The log follower and the watch of one run."""

    def __init__(
        self,
        station: Station,
        lease: Lease,
        workspace: Workspace,
        container_id: str,
        *,
        log_begins_at: int = 0,
    ) -> None:
        self._station = station
        self._lease = lease
        self._workspace = workspace
        self.container_id = container_id
        self.log = LogFollower(
            lambda: station.engine.follow_logs(container_id),
            lambda offset, piece: station.server.append_log(lease, offset, piece),
            limit_bytes=lease.limits.log_bytes,
            begins_at=log_begins_at,
        )
        self._watch: Watch | None = None

    def start(self, deadline: float, emit: Emit, report: Callable[[Progress], None]) -> None:
        """Begin to follow and to watch; ``deadline`` is a ``time.monotonic()``."""
        self.log.start()
        settings = self._station.settings
        layer = self._writable_layer()
        strict = self._lease.sandbox.profile is SandboxProfile.STRICT
        watched = Watched(
            output=self._workspace.output,
            progress_directory=self._workspace.progress,
            progress_file=PROGRESS_FILE,
            layer=layer,
            layer_bytes=settings.writable_layer_bytes,
            ask_layer=None if strict or layer is not None else self._layer_bytes,
            limits=self._lease.limits,
            minimum_free_bytes=settings.minimum_free_bytes,
            deadline=deadline,
        )
        self._watch = Watch(watched, emit, report)
        self._watch.start()

    def end_watch(self) -> None:
        """The container has ended; its output does not change any more."""
        if self._watch is not None:
            self._watch.close()

    def _writable_layer(self) -> Path | None:
        """Where the engine keeps what a model of the compatible profile writes, if that is here."""
        if self._lease.sandbox.profile is SandboxProfile.STRICT:
            return None
        try:
            found = self._station.engine.find_container(self.container_id)
        except EngineError:
            return None
        layer = Path(found.upper_directory) if found is not None and found.upper_directory else None
        try:
            return layer if layer is not None and layer.is_dir() else None
        except PermissionError:
            # Only root may look there.
            return None

    def _layer_bytes(self) -> int:
        """What the engine counts; nothing while it cannot be asked, since others notice that."""
        try:
            return self._station.engine.layer_bytes(self.container_id)
        except EngineError:
            return 0


def exit_producer(engine: Engine, container_id: str, watch: ExitWatch, emit: Emit) -> Thread:
    """A thread that puts the container's exit on the queue when it comes, or that the engine was lost."""
    return producer(lambda: emit(Exited(exit_code=_await_exit(engine, container_id, watch))), emit, "exit")


def _await_exit(engine: Engine, container_id: str, watch: ExitWatch) -> int:
    while True:
        try:
            return watch.result()
        except EngineError as error:
            watch = _watch_again(engine, container_id, error)


def _watch_again(engine: Engine, container_id: str, lost: EngineError) -> ExitWatch:
    """A new watch once the engine is back and the container still runs.

    One that has ended in the meantime was ended by the engine's own end, whatever its exit code says.
    """
    deadline = time.monotonic() + ENGINE_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_ENGINE_PAUSE_SECONDS)
        try:
            found = engine.find_container(container_id)
            if found is None or not found.running:
                break
            return engine.watch_exit(container_id)
        except EngineError:
            continue
    raise EngineAwayError(str(lost)) from lost
