"""Models' static content on this node: unpacked once per content hash, shared by all slots, kept for later
tasks.

Attempts enter to get a volume. One slot fetches while the others wait at a file lock; a directory appears
under its final name only when it is complete. Nothing here is ever written to again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

from filelock import FileLock, Timeout

from consumer.node.fetching import disk_failure, fetch_and_unpack
from consumer.node.workspace import remove_tree
from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import AbandonedError
from consumer.outside.labels import Owner
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode

# How often a slot that waits for another slot's download looks whether its task is still wanted.
_LOCK_SECONDS = 0.5


class Contents:
    """The contents below one directory, and the volumes that show them."""

    def __init__(self, engine: Engine, directory: Path, owner: Owner) -> None:
        self._engine = engine
        self._directory = directory
        self._owner = owner

    def ensure_volume(
        self,
        facts: BlobFacts,
        open_stream: Callable[[], Iterator[bytes]],
        abandoned: Event,
        *,
        keep_free_bytes: int,
    ) -> str:
        """The volume that shows this content, fetched if need be; raises as ``fetch_and_unpack`` does."""
        data = self._directory / facts.sha256
        try:
            if not data.is_dir():
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                with _locked(self._directory / f"{facts.sha256}.lock", abandoned):
                    if not data.is_dir():
                        self._fetch(facts, open_stream, data, abandoned, keep_free_bytes)
        except OSError as error:
            raise disk_failure(error) from error
        name = self._volume_name(data)
        # The engine answers with the volume that is there, or makes one that somebody has pruned.
        role = {labels.ROLE: labels.ROLE_CONTENT}
        self._engine.create_volume(name, str(data), self._owner.shared_labels() | role)
        return name

    def _fetch(
        self,
        facts: BlobFacts,
        open_stream: Callable[[], Iterator[bytes]],
        data: Path,
        abandoned: Event,
        keep_free_bytes: int,
    ) -> None:
        for left_behind in self._directory.glob(f"{facts.sha256}.*.incoming"):
            remove_tree(left_behind)
        incoming = self._directory / f"{facts.sha256}.{secrets.token_hex(4)}.incoming"
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
                keep_free_bytes=keep_free_bytes,
            )
            # The final name says that all is there, after a power cut as well: so first the content, then it.
            _sync_tree(unpacked)
            unpacked.rename(data)
            _sync(self._directory)
        finally:
            remove_tree(incoming)

    def _volume_name(self, data: Path) -> str:
        # The place is part of the name: the engine would show an old volume's directory for ever.
        place = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
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
