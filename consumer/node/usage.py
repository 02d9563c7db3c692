"""How much a model has written so far, while it may still be writing.

``watch.py`` and ``attempt.py`` enter. Names may vanish at any moment, trees may be deeper than paths may be
long; no link is followed, and counting ends as soon as the limit is passed.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Bytes and names seen. ``too_deep``: some directory cannot be reached by a path any more."""

    size_bytes: int
    files: int
    too_deep: bool = False


def measure(root: Path, max_bytes: int, max_files: int) -> Usage:
    """Count what lies below ``root`` until one of the limits is passed.

    A file counts with the larger of its length and its blocks: a sparse terabyte is a terabyte to whoever
    reads it.
    """
    size_bytes = files = 0
    pending = [os.fspath(root)]
    while pending:
        path = pending.pop()
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return Usage(size_bytes=size_bytes, files=files, too_deep=True)
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    files += 1
                    status = _status(entry)
                    if status is None:
                        continue
                    size_bytes += max(status.st_size, status.st_blocks * _BLOCK_BYTES)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(f"{path}/{entry.name}")
                    if size_bytes > max_bytes or files > max_files:
                        return Usage(size_bytes=size_bytes, files=files)
        finally:
            os.close(descriptor)
    return Usage(size_bytes=size_bytes, files=files)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


def excess(usage: Usage, max_bytes: int, max_files: int, what: str) -> str | None:
    """A sentence when ``usage`` passes a limit; ``what`` is its subject, such as "The output"."""
    if usage.size_bytes > max_bytes:
        return f"{what} holds more than {max_bytes:,} bytes; write less, or raise the model's limit."
    if usage.files > max_files:
        return f"{what} holds more than {max_files:,} files and directories; write fewer, or raise the limit."
    if usage.too_deep:
        return f"{what} has directories nested too deeply to be read; write a flatter tree."
    return None


def free_bytes(path: Path) -> int:
    """What is left for us on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
