"""The hidden ``.part`` file that holds a download's bytes until every one of them is there and right.

A download opens one and alone writes to it for as long as it is open; two downloads of the same bytes to the
same target never share one. It knows nothing of servers or hashes beyond its own name.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class PartFile:
    """Bytes of one download. Under its usual name, locked, it may go on with what an earlier run left.

    Where that name is taken by a download that runs, or files cannot be locked (Windows, some network file
    systems), it has a name of its own, and nothing of it is left after a failure: nobody could go on with it.
    """

    def __init__(self, target: Path, sha256: str) -> None:
        # The hash in its name keeps a later call from going on with the bytes of something else.
        usual = target.with_name(f".{target.name}.{sha256[:16]}.part")
        descriptor = _open_locked(usual)
        self._resumable = descriptor is not None
        self._path = usual
        if descriptor is None:
            self._path = usual.with_suffix(f".{secrets.token_hex(8)}.part")
            descriptor = os.open(self._path, _FLAGS | os.O_EXCL, 0o666)
        self._target = target
        self._settled = False
        self.stream: BinaryIO = os.fdopen(descriptor, "r+b")

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._resumable and not self._settled:
            self.discard()
        self.stream.close()

    def keep(self) -> None:
        """Move it to the target, replacing what is there."""
        self.stream.flush()
        if not self._resumable:
            # Windows moves no open file; nobody else knows this name, so no lock is missed meanwhile.
            self.stream.close()
        self._path.replace(self._target)
        self._settled = True

    def discard(self) -> None:
        """Remove it."""
        if not self._resumable:
            self.stream.close()
        self._path.unlink(missing_ok=True)
        self._settled = True


def _open_locked(path: Path) -> int | None:
    """The file, made where missing and locked for us alone; None where somebody has it or nothing locks."""
    if sys.platform == "win32":
        return None
    import fcntl  # noqa: PLC0415  # Only where there is such a thing.

    while True:
        descriptor = os.open(path, _FLAGS, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        # Whoever held the lock until now may have moved or removed the file that we opened.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        os.close(descriptor)
