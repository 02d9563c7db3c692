"""Who uses a cached thing right now, told between the processes of a node by locks on a small file.

Contents and images enter. Whoever is about to use a thing holds its file together with others; whoever wants
to remove it must have the file alone, and gives up at once when it cannot. The locks end with their process,
however it ends. The file's time of change says when the thing was last used.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from consumer.outside.errors import AbandonedError

# Whoever removes a thing has its file for as long as one call to the engine takes.
_POLL_SECONDS = 0.02


@contextmanager
def held(path: Path, abandoned: Event) -> Iterator[None]:
    """Use the thing of this file, which is made where it is missing, and note that it was used.

    Raises ``OSError``, and ``AbandonedError`` once told so while somebody removes the thing.
    """
    descriptor = _locked(path, fcntl.LOCK_SH)
    while descriptor is None:
        if abandoned.wait(_POLL_SECONDS):
            raise AbandonedError("what was to be used is no longer wanted")
        descriptor = _locked(path, fcntl.LOCK_SH)
    try:
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether nobody uses the thing of this file, and nobody can begin to until the end of the block."""
    descriptor = _locked(path, fcntl.LOCK_EX)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(path: Path, kind: int) -> int | None:
    """A descriptor with the lock, None while somebody's lock is in the way."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Its last owner removed the file between our two steps: nobody would hear of a lock on that one.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
