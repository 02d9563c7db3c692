"""How much a model has written so far, while it may still be writing, and what the disk has left.

Whoever watches or fills a disk enters. Names may vanish or be replaced at any moment and trees may be deeper
than paths may be long: every directory is opened name by name from the root, no link is followed anywhere on
the way, and counting ends as soon as the limit is passed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 512
# PATH_MAX: what lies deeper cannot be read by its path.
_PATH_BYTES = 4096
# On the way down every so many levels a directory is held open, so that no way begins at the root again.
_HELD_LEVELS = 16
# A node without file numbers (inodes) is as full as one without bytes; the engine alone needs hundreds.
MINIMUM_FREE_FILES = 10_000
# A small file system never had that many: there this part of all counts.
_MINIMUM_FREE_PART = 20


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Bytes and names seen.

    ``too_deep``: some directory cannot be reached by a path any more. ``unreadable``: some may not be read.
    """

    size_bytes: int
    files: int
    too_deep: bool = False
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory that was seen and is still to be counted; the root has no parent."""

    parent: _Directory | None
    name: str
    depth: int
    path_bytes: int


def measure(root: Path, max_bytes: int, max_files: int) -> Usage:
    """Count what lies below ``root`` until one of the limits is passed.

    A file counts with the larger of its length and its blocks: a sparse terabyte is a terabyte to whoever
    reads it.
    """
    usage = Usage(size_bytes=0, files=0)
    pending = [_Directory(parent=None, name="", depth=0, path_bytes=0)]
    descent = _Descent(root)
    try:
        while pending and usage.size_bytes <= max_bytes and usage.files <= max_files:
            directory = pending.pop()
            if directory.path_bytes > _PATH_BYTES:
                return replace(usage, too_deep=True)
            try:
                descriptor = descent.open(directory)
            except PermissionError:
                usage = replace(usage, unreadable=True)
                continue
            except OSError:
                # It has gone, or something else has taken its place; the next count sees that.
                continue
            try:
                usage = _count(descriptor, directory, pending, usage, max_bytes, max_files)
            finally:
                os.close(descriptor)
    finally:
        descent.close()
    return usage


def _count(
    descriptor: int,
    directory: _Directory,
    pending: list[_Directory],
    usage: Usage,
    max_bytes: int,
    max_files: int,
) -> Usage:
    """Add what lies in one directory to ``usage``, and what has to be counted yet to ``pending``."""
    size_bytes, files = usage.size_bytes, usage.files
    with os.scandir(descriptor) as entries:
        for entry in entries:
            files += 1
            status = _status(entry)
            if status is not None:
                size_bytes += max(status.st_size, status.st_blocks * _BLOCK_BYTES)
                if stat.S_ISDIR(status.st_mode):
                    length = directory.path_bytes + 1 + len(os.fsencode(entry.name))
                    pending.append(_Directory(directory, entry.name, directory.depth + 1, length))
            if size_bytes > max_bytes or files > max_files:
                break
    return replace(usage, size_bytes=size_bytes, files=files)


class _Descent:
    """Opens directories one after another, each name by name and without following a link."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # The directories held open, by depth, each above the next.
        self._held: list[tuple[_Directory, int]] = []

    def open(self, directory: _Directory) -> int:
        """A descriptor, which is the caller's to close."""
        way = self._way_from_held(directory)
        descriptor = os.dup(self._held[-1][1]) if self._held else os.open(self._root, _FLAGS)
        try:
            for step in way:
                below = os.open(step.name, _FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
                if step.depth % _HELD_LEVELS == 0:
                    self._held.append((step, os.dup(descriptor)))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def close(self) -> None:
        """Let go of what is held."""
        while self._held:
            os.close(self._held.pop()[1])

    def _way_from_held(self, directory: _Directory) -> list[_Directory]:
        """The steps to ``directory`` from the last held directory above it; those beside it are let go."""
        way: list[_Directory] = []
        here = directory
        while here.parent is not None:
            while self._held and self._held[-1][0].depth > here.depth:
                os.close(self._held.pop()[1])
            if self._held and self._held[-1][0] is here:
                break
            way.append(here)
            here = here.parent
        else:
            self.close()
        return way[::-1]


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
    if usage.unreadable:
        # What cannot be counted could be of any size.
        return f"{what} has directories that may not be read; leave their permissions as they are."
    return None


def disk_shortage(path: Path, keep_bytes: int, *, more_bytes: int = 0, more_files: int = 0) -> str | None:
    """Why the file system of ``path`` cannot take so much more, as the beginning of a sentence.

    ``keep_bytes`` and a number of file names stay free in any case; null when there is room.
    """
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    needed = f" and {more_bytes:,} more are needed" if more_bytes else ""
    if free - more_bytes < keep_bytes:
        return f"The node has only {free:,} bytes of disk left{needed}; {keep_bytes:,} are kept free there"
    # Some file systems (btrfs) do not count files, and say that they have none.
    keep_files = min(MINIMUM_FREE_FILES, status.f_files // _MINIMUM_FREE_PART)
    if status.f_files and status.f_favail - more_files < keep_files:
        return f"The node's disk has room for only {status.f_favail:,} more files (inodes)"
    return None


def exhaustion(path: Path) -> str | None:
    """Why the file system of ``path`` takes nothing more at all, as the beginning of a sentence."""
    status = os.statvfs(path)
    # A file of any size takes a block.
    if status.f_bavail < 1:
        return "The node's disk is full"
    if status.f_files and status.f_favail < 1:
        return "The node's disk has no room for another file (inode)"
    return None
