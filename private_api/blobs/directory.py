"""Blobs as files below one directory: ``<root>/<kind>/<name>``; uploads lie in ``<root>/unfinished``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from contracts.messages import BlobFacts
from private_api.blobs.store import BLOB_KINDS, BlobMissingError, BlobStoreFullError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
# While a large upload runs, what it wrote is handed to the disk in steps, so that the last flush is short.
_FLUSH_BYTES = 64 * 1024 * 1024
# An upload's file is made and locked within this time.
_BEGUN_SECONDS = 10.0


class DirectoryBlobStore:
    """A blob store on a local file system."""

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        self._root = root
        self._unfinished = root / "unfinished"
        self._min_free_bytes = min_free_bytes
        self._unfinished.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(self, key: str, *, declared_bytes: int | None) -> DirectoryBlobWriter:
        """Start an upload; raises ``BlobStoreFullError`` when what is declared would not fit on the disk."""
        self._check_room(declared_bytes or 0)
        temporary = self._unfinished / secrets.token_hex(16)
        return DirectoryBlobWriter(self._root / key, temporary, self._check_room)

    def _check_room(self, for_bytes: int = 0) -> None:
        if shutil.disk_usage(self._root).free - for_bytes < self._min_free_bytes:
            raise BlobStoreFullError("The server's disk is nearly full.")

    def open(self, key: str) -> BinaryIO:
        """The blob as a seekable file; raises ``BlobMissingError``."""
        try:
            return (self._root / key).open("rb")
        except FileNotFoundError as error:
            raise BlobMissingError(key) from error

    def direct_url(self, key: str, *, filename: str) -> str | None:  # noqa: ARG002 - Nobody reaches the disk.
        """None: a directory has no address."""
        return None

    def delete(self, key: str) -> None:
        """Remove the blob; fine if it is gone already."""
        (self._root / key).unlink(missing_ok=True)

    def keys_older_than(self, age_seconds: float) -> Iterator[str]:
        """Keys of blobs stored at least ``age_seconds`` ago."""
        # Whatever else lies here is not ours, and the sweeper's least of all.
        for kind in BLOB_KINDS:
            with contextlib.suppress(FileNotFoundError):
                for file in _older_than(self._root / kind, age_seconds):
                    yield f"{kind}/{file.name}"

    def sweep_unfinished(self) -> None:
        """Remove what uploads left behind whose process has died: their files are locked by nobody."""
        for file in _older_than(self._unfinished, _BEGUN_SECONDS):
            with contextlib.suppress(FileNotFoundError, BlockingIOError), file.open("rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise an ``OSError`` when nothing can be written here."""
        probe = self._unfinished / f"probe-{secrets.token_hex(8)}"
        probe.touch()
        probe.unlink()


class DirectoryBlobWriter:
    """An upload into a nameless file, renamed to its key when it is complete."""

    def __init__(self, target: Path, temporary: Path, check_room: Callable[[], None]) -> None:
        self._check_room = check_room
        self._target = target
        self._temporary = temporary
        self._file = temporary.open("xb", buffering=0)
        # The kernel lets go of it when the process dies, however it dies; the sweeper asks for that.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._hash = hashlib.sha256()
        self._size = 0
        self._flushed = 0

    def write(self, data: bytes) -> None:
        """Append ``data``; raises ``BlobStoreFullError``."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise _as_full(error) from error
        self._hash.update(data)
        self._size += len(data)
        if self._size - self._flushed >= _FLUSH_BYTES:
            # Advice, and asynchronous: dirty pages start on their way to the disk and may leave the cache.
            os.posix_fadvise(self._file.fileno(), self._flushed, 0, os.POSIX_FADV_DONTNEED)
            self._flushed = self._size
            # The database lives on this disk too, perhaps; one long upload must not leave it without room.
            self._check_room()

    def finish(self) -> BlobFacts:
        """Make the blob appear under its key; it survives a power cut from here on."""
        target = self._target
        target.parent.mkdir(exist_ok=True, mode=0o700)
        try:
            os.fdatasync(self._file.fileno())
            # Renamed while it is still locked: the sweeper must not find it in between.
            self._temporary.rename(target)
            self._file.close()
            _sync_directory(target.parent)
        except OSError as error:
            raise _as_full(error) from error
        return BlobFacts(size_bytes=self._size, sha256=self._hash.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _as_full(error: OSError) -> Exception:
    return BlobStoreFullError("The server's disk is full.") if error.errno in _NO_ROOM else error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _older_than(directory: Path, age_seconds: float) -> Iterator[Path]:
    limit = time.time() - age_seconds
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mtime <= limit:
                yield Path(entry.path)
