"""Models' static content on this node: unpacked once per content hash, shared by all slots, kept for later
tasks until its room is needed.

Attempts enter to use one, ``room.py`` to remove one. One slot fetches while the others wait at a file lock; a
directory appears under its final name only when it is complete. Nothing in one is ever written to again.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from consumer.metrics import Cache, count_lookup
from consumer.node.eviction import Entry, Kind
from consumer.node.fetching import Allowance, disk_failure, fetch_and_unpack
from consumer.node.holds import alone, held
from consumer.node.residence import HostPaths
from consumer.node.usage import measure
from consumer.node.workspace import remove_tree
from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import AbandonedError, RefusedError
from consumer.outside.labels import Owner
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode

# How often a slot that waits for another slot's download looks whether its task is still wanted.
_LOCK_SECONDS = 0.5
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNT_ALL = 2**62


class Contents:
    """The contents below one directory, and the volumes that show them.

    Of a content with the hash H there are: ``H``, the directory; ``H.used``, held by those who use it and as
    old as its last use; ``H.lock``, held by who fetches it; ``H.*.incoming`` and ``H.*.evicted``, on its way
    in or out.
    """

    def __init__(self, engine: Engine, directory: Path, owner: Owner, host_paths: HostPaths) -> None:
        self._engine = engine
        self._directory = directory
        self._owner = owner
        self._host_paths = host_paths

    def use(
        self,
        facts: BlobFacts,
        open_stream: Callable[[], Iterator[bytes]],
        abandoned: Event,
        uses: ExitStack,
        allowance: Allowance,
        *,
        counted: bool = True,
    ) -> str:
        """The volume that shows this content, fetched if need be; raises as ``fetch_and_unpack`` does.

        It stays until ``uses`` is closed, and from then on for as long as a container has it. ``counted``
        looks are those of tasks, for the metrics.
        """
        data = self._directory / facts.sha256
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            uses.enter_context(held(self._path(facts.sha256, "used"), abandoned))
            is_here = data.is_dir()
            if counted:
                count_lookup(Cache.CONTENT, hit=is_here)
            if not is_here:
                with _locked(self._path(facts.sha256, "lock"), abandoned):
                    if not data.is_dir():
                        self._fetch(facts, open_stream, data, abandoned, allowance)
        except OSError as error:
            raise disk_failure(error) from error
        name, device = self._volume_name(data), self._host_paths.device(data)
        # The engine answers with the volume that is there, or makes one that somebody has pruned.
        role = {labels.ROLE: labels.ROLE_CONTENT}
        self._engine.create_volume(name, device, self._owner.shared_labels() | role)
        return name

    def has(self, sha256: str) -> bool:
        """Whether this content is here, complete."""
        return _SHA256.fullmatch(sha256) is not None and (self._directory / sha256).is_dir()

    def entries(self, *, sized: bool = True) -> list[Entry]:
        """All contents that are complete; counting how large they are may take a while."""
        found: list[Entry] = []
        for data in self._complete():
            with suppress(OSError):
                size_bytes = measure(data, _COUNT_ALL, _COUNT_ALL).size_bytes if sized else 0
                found.append(
                    Entry(
                        kind=Kind.CONTENT,
                        name=data.name,
                        size_bytes=size_bytes,
                        last_used=self._last_used(data),
                        disk=data.stat().st_dev,
                    )
                )
        return found

    def remove(self, sha256: str) -> bool:
        """Remove a content unless somebody uses it, and say whether it has gone.

        Raises ``EngineError`` and ``OSError``.
        """
        data = self._directory / sha256
        leaving = self._path(sha256, f"{secrets.token_hex(4)}.evicted")
        with alone(self._path(sha256, "used")) as unused:
            if not unused or not data.is_dir():
                return False
            try:
                self._engine.remove_volume(self._volume_name(data))
            except RefusedError:
                # A container has it: of an attempt that an earlier life of a slot began, say.
                return False
            # In one step it is no longer there for anybody; what takes long comes afterwards.
            data.rename(leaving)
            for name in ("lock", "used"):
                self._path(sha256, name).unlink(missing_ok=True)
        remove_tree(leaving)
        return True

    def sweep(self) -> None:
        """Remove what killed processes left half fetched or half removed."""
        if not self._directory.is_dir():
            return
        for path in self._directory.glob("*.evicted"):
            remove_tree(path)
        for path in self._directory.glob("*.incoming"):
            with alone(self._path(path.name.partition(".")[0], "used")) as unused:
                if unused:
                    remove_tree(path)

    def _fetch(
        self,
        facts: BlobFacts,
        open_stream: Callable[[], Iterator[bytes]],
        data: Path,
        abandoned: Event,
        allowance: Allowance,
    ) -> None:
        for left_behind in self._directory.glob(f"{facts.sha256}.*.incoming"):
            remove_tree(left_behind)
        incoming = self._path(facts.sha256, f"{secrets.token_hex(4)}.incoming")
        unpacked = incoming / "data"
        unpacked.mkdir(parents=True)
        unpacked.chmod(0o755)
        try:
            fetch_and_unpack(
                open_stream,
                facts,
                incoming / "content.zip",
                unpacked,
                abandoned,
                invalid=ReasonCode.CONTENT_INVALID,
                allowance=allowance,
            )
            # The final name says that all is there, after a power cut as well: so first the content, then it.
            _sync_tree(unpacked)
            unpacked.rename(data)
            _sync(self._directory)
        finally:
            remove_tree(incoming)

    def _complete(self) -> list[Path]:
        listed = self._directory.iterdir() if self._directory.is_dir() else ()
        return [path for path in listed if _SHA256.fullmatch(path.name) and path.is_dir()]

    def _last_used(self, data: Path) -> float:
        try:
            return self._path(data.name, "used").stat().st_mtime
        except FileNotFoundError:
            # Fetched by a release that kept no such file.
            return data.stat().st_mtime

    def _path(self, sha256: str, suffix: str) -> Path:
        return self._directory / f"{sha256}.{suffix}"

    def _volume_name(self, data: Path) -> str:
        # The place is part of the name: the engine would show an old volume's directory for ever.
        place = hashlib.sha256(os.fsencode(self._host_paths.device(data))).hexdigest()[:16]
        return f"{self._owner.shared_name}-content-{place}"


def _sync_tree(root: Path) -> None:
    """Bring a directory of ours and all below it to the disk."""
    for directory, _, names in os.walk(root):
        for name in names:
            _sync(Path(directory, name))
        _sync(Path(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path, abandoned: Event) -> Iterator[None]:
    lock = FileLock(path)
    while not lock.is_locked:
        if abandoned.is_set():
            raise AbandonedError("the content is no longer wanted")
        with suppress(Timeout):
            lock.acquire(timeout=_LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()
