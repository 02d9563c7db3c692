"""Walking a directory that an untrusted program wrote and has stopped writing.

``packing`` enters here. The walk holds one directory open at a time, however deep the tree is, goes down by
name without following a link, and goes up by ``..`` while making sure that it arrives where it came from. It
never recurses, opens only directories, and gives the names of each directory in the order of their bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archives.errors import OutputInvalidError, OutputTooLargeError, quoted

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Node:
    """One name in the tree: ``path`` relative to the root; ``parent`` is open only until the walk goes on."""

    path: bytes
    name: bytes
    parent: int
    status: os.stat_result
    siblings: list[bytes]

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, and no link to one."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)


@dataclass(slots=True)
class _Level:
    """A directory on the way down: which of its names are still to come, and what identifies it."""

    path: bytes
    names: list[bytes]
    next: int
    identity: tuple[int, int]


def walk(root: Path, max_names: int, max_path_bytes: int) -> Iterator[Node]:
    """Give every name below ``root``, each directory before what it holds.

    Raises ``OutputTooLargeError`` when a single directory has more than ``max_names`` names (they are held
    in memory to be sorted), ``OutputInvalidError`` when a path grows beyond ``max_path_bytes`` or the tree
    changes during the walk.
    """
    directory = os.open(root, DIRECTORY_FLAGS)
    try:
        levels = [_enter(directory, b"", max_names)]
        while levels:
            level = levels[-1]
            if level.next == len(level.names):
                levels.pop()
                if levels:
                    directory = _step(directory, b"..", levels[-1].path, levels[-1].identity)
                continue
            name = level.names[level.next]
            level.next += 1
            path = level.path + name
            if len(path) > max_path_bytes:
                raise OutputInvalidError(f"{quoted(path)} in the output lies too deep to be unpacked.")
            node = Node(path, name, directory, _status(name, directory, path), level.names)
            yield node
            if node.is_directory:
                directory = _step(directory, name, path, _identity(node.status))
                levels.append(_enter(directory, path + b"/", max_names))
    finally:
        os.close(directory)


def _enter(directory: int, path: bytes, max_names: int) -> _Level:
    names: list[bytes] = []
    with os.scandir(directory) as listing:
        for item in listing:
            names.append(os.fsencode(item.name))
            if len(names) > max_names:
                raise OutputTooLargeError(f"The output holds more than {max_names:,} files and directories.")
    names.sort()
    return _Level(path, names, 0, _identity(os.fstat(directory)))


def _step(directory: int, name: bytes, path: bytes, expected: tuple[int, int]) -> int:
    """Go from ``directory`` to its neighbour ``name``, which must be the one that was seen before."""
    try:
        neighbour = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    except OSError as error:
        raise changed(path) from error
    if _identity(os.fstat(neighbour)) != expected:
        os.close(neighbour)
        raise changed(path)
    os.close(directory)
    return neighbour


def _status(name: bytes, directory: int, path: bytes) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError as error:
        raise changed(path) from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def changed(path: bytes) -> OutputInvalidError:
    """The error for a tree that is not as it was a moment ago."""
    return OutputInvalidError(f"The output changed while it was read, at {quoted(path)}.")
