"""Makes the zip that a task is sent with, from directories and files.

First a plan (what goes in, under which name, what is left out and why), then the writing, streamed. The
same files make the same bytes. No link is followed and nothing but regular files and directories goes in.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inference_server_client.errors import InputError

_CHUNK_BYTES = 1024 * 1024
# A zip's oldest possible time: the same files make the same zip, whenever they were copied here.
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
# These are compressed already; deflating them again costs time and gains nothing.
# fmt: off
_COMPRESSED = frozenset({
    ".7z", ".avi", ".bz2", ".docx", ".gif", ".gz", ".jp2", ".jpeg", ".jpg", ".mkv", ".mov", ".mp3", ".mp4",
    ".npz", ".ogg", ".png", ".rar", ".tgz", ".webm", ".webp", ".xlsx", ".xz", ".zip", ".zst",
})
# fmt: on
# The fast end of deflate: the network is rarely slower than it, and often slower than no compression at all.
_DEFLATE_LEVEL = 1


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the zip; directories end in a slash."""

    name: str
    path: Path
    size_bytes: int
    executable: bool

    @property
    def is_directory(self) -> bool:
        """Whether it stands for an empty directory rather than a file."""
        return self.name.endswith("/")


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Something that is left out, and why."""

    path: Path
    why: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """What will be zipped, in the order of the names."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files, before compression."""
        return sum(entry.size_bytes for entry in self.entries)


def ready_zip(paths: Sequence[Path]) -> Path | None:
    """The one path that is a zip already and is sent as it is; raises ``InputError`` for a broken one."""
    if len(paths) != 1 or paths[0].suffix.lower() != ".zip" or not paths[0].is_file():
        return None
    if not zipfile.is_zipfile(paths[0]):
        raise InputError(f"{paths[0]} is not a zip, or it is damaged.")
    return paths[0]


def plan_package(paths: Sequence[Path], *, leave_out: Path | None = None) -> Package:
    """What to zip: the contents of one directory, or several files and directories under their own names.

    ``leave_out``: a directory (that of the results) which is skipped where it lies inside.
    """
    entries: dict[str, Entry] = {}
    skipped: list[Skipped] = []
    left_out = None if leave_out is None else leave_out.resolve()
    for path in paths:
        found = _lstat(path)
        if stat.S_ISLNK(found.st_mode):
            raise InputError(f"{path} is a link, and links are not followed; give {path.resolve()} instead.")
        alone = len(paths) == 1 and stat.S_ISDIR(found.st_mode)
        prefix = "" if alone else path.resolve().name
        for entry in _walk(path, prefix, left_out, skipped):
            if entry.name in entries or entry.name.rstrip("/") in entries:
                raise InputError(
                    f"Two of the paths would both be {entry.name} in the zip; rename one of them."
                )
            entries[entry.name] = entry
    if not any(not entry.is_directory for entry in entries.values()):
        raise InputError("There is no file to send in " + ", ".join(map(str, paths)) + ".")
    return Package(entries=tuple(entries[name] for name in sorted(entries)), skipped=tuple(skipped))


def write_package(
    package: Package, stream: BinaryIO, on_progress: Callable[[int], None] | None = None
) -> None:
    """Write the zip; ``on_progress`` is told how many bytes of files have been read."""
    done = 0
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for entry in package.entries:
            info = zipfile.ZipInfo(entry.name, _FIXED_TIME)
            info.create_system = 3
            if entry.is_directory:
                info.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10
                archive.writestr(info, b"")
                continue
            info.external_attr = (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16
            suffix = entry.path.suffix.lower()
            info.compress_type = zipfile.ZIP_STORED if suffix in _COMPRESSED else zipfile.ZIP_DEFLATED
            # Public (as compress_level) from Python 3.13 on, where this older name still works.
            info._compresslevel = _DEFLATE_LEVEL  # type: ignore[attr-defined]
            # Announced, so that a file of more than 4 GiB gets the fields it needs.
            info.file_size = entry.size_bytes
            with _open_regular(entry.path) as source, archive.open(info, "w") as target:
                left = entry.size_bytes
                while left and (data := source.read(min(_CHUNK_BYTES, left))):
                    target.write(data)
                    left -= len(data)
                    done += len(data)
                    if on_progress is not None:
                        on_progress(done)


def _walk(top: Path, prefix: str, left_out: Path | None, skipped: list[Skipped]) -> list[Entry]:
    entries: list[Entry] = []
    # A list of our own instead of recursion: directories may be nested deeper than Python likes to call.
    waiting = [(top, prefix)]
    while waiting:
        path, name = waiting.pop()
        found = _lstat(path)
        why = _why_skipped(path, name, found.st_mode, left_out)
        if why is not None:
            skipped.append(Skipped(path=path, why=why))
        elif stat.S_ISDIR(found.st_mode):
            try:
                children = sorted(child.name for child in path.iterdir())
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}.") from error
            waiting += [(path / child, f"{name}/{child}" if name else child) for child in children]
            if not children and name:
                entries.append(Entry(name=f"{name}/", path=path, size_bytes=0, executable=True))
        else:
            executable = bool(found.st_mode & stat.S_IXUSR)
            entries.append(Entry(name=name, path=path, size_bytes=found.st_size, executable=executable))
    return entries


def _why_skipped(path: Path, name: str, mode: int, left_out: Path | None) -> str | None:
    if stat.S_ISLNK(mode):
        return "a link"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "neither a file nor a directory"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if left_out is not None and stat.S_ISDIR(mode) and path.resolve() == left_out:
        return "the directory for the results"
    return None


def _lstat(path: Path) -> os.stat_result:
    try:
        return path.lstat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _open_regular(path: Path) -> BinaryIO:
    # What was a file when the plan was made may have been replaced by a link or a pipe since.
    flags = (
        os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        stream = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise InputError(f"{path} was replaced while it was being read; try again.")
    return stream
