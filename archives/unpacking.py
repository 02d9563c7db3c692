"""Unpacking a zip from a stranger into an empty directory of ours.

The consumer enters with a task's input and a model's static content. The zip is inspected first, and then
exactly the entries that were inspected are unpacked: no second reading of the directory could see another
zip. Every name is opened relative to a directory that was opened without following a link, and no file is
opened that exists already. Sizes that turn out to be lies stop it. On failure what was written stays: the
directory is its owner's to remove. Times and owners are not restored. Mode bits are not either, except that
a file that its owner may execute stays executable, for static content may hold scripts.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from archives.directory import Entry, utf8_name
from archives.errors import ArchiveError, UnpackingAbandonedError, quoted
from archives.format import IS_ENCRYPTED, LOCAL, LOCAL_SIGNATURE, STORED
from archives.inspection import ZipFacts, facts_of, inspected_entries
from archives.limits import ZipLimits

# Large enough that the disk sets the pace, small enough that it does not count against a process's memory.
_CHUNK_BYTES = 1024 * 1024
# What is fed to zlib at once; what it leaves over is copied on every turn, so less than a chunk.
_PACKED_CHUNK_BYTES = 256 * 1024
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    path: Path,
    destination: Path,
    limits: ZipLimits,
    *,
    file_mode: int = 0o644,
    directory_mode: int = 0o755,
    abandoned: Callable[[], bool] = lambda: False,
) -> ZipFacts:
    """Inspect the zip at ``path`` and unpack it into the existing, empty directory ``destination``.

    The modes apply whatever the umask is. ``abandoned`` is asked before every entry and every piece of about
    1 MiB. Raises ``ArchiveError`` for what is wrong with the zip, ``OSError`` for what is wrong with the disk
    (``ENOSPC`` when it is full), ``UnpackingAbandonedError`` once ``abandoned`` says yes.
    """
    with path.open("rb") as file:
        entries = inspected_entries(file, limits)
        tree = _Tree(destination, file_mode, directory_mode)
        try:
            for entry in entries:
                _unpack_entry(file, entry, tree, abandoned)
        finally:
            tree.close()
    return facts_of(entries)


class _Tree:
    """The directories on the way to the entry that is being unpacked, each held open."""

    def __init__(self, root: Path, file_mode: int, directory_mode: int) -> None:
        self._file_mode = file_mode
        self._directory_mode = directory_mode
        self._names: list[bytes] = []
        self._descriptors = [os.open(root, _DIRECTORY_FLAGS)]

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def enter(self, names: list[bytes]) -> int:
        """Descriptor of the directory ``names``, made where it is missing; what is open already is kept."""
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        while len(self._names) > shared:
            self._names.pop()
            os.close(self._descriptors.pop())
        for name in names[shared:]:
            self._descriptors.append(self._open_directory(name, self._descriptors[-1]))
            self._names.append(name)
        return self._descriptors[-1]

    def create_file(self, path: bytes, mode: int) -> int:
        """Descriptor of the new file ``path``."""
        *directories, name = path.split(b"/")
        parent = self.enter(directories)
        descriptor = os.open(name, _NEW_FILE_FLAGS, 0o600, dir_fd=parent)
        may_read = self._file_mode & 0o444
        os.fchmod(descriptor, self._file_mode | (may_read >> 2 if mode & 0o100 else 0))
        return descriptor

    def _open_directory(self, name: bytes, parent: int) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        os.fchmod(descriptor, self._directory_mode)
        return descriptor


def _unpack_entry(file: BinaryIO, entry: Entry, tree: _Tree, abandoned: Callable[[], bool]) -> None:
    _stop_if(abandoned)
    if entry.name.endswith(b"/"):
        tree.enter(entry.name.removesuffix(b"/").split(b"/"))
        return
    _seek_to_data(file, entry)
    chunks = _stored_chunks(file, entry) if entry.method == STORED else _inflated_chunks(file, entry)
    descriptor = tree.create_file(entry.name, entry.mode)
    try:
        crc32 = written = 0
        for chunk in chunks:
            written += len(chunk)
            if written > entry.unpacked_bytes:
                raise _lying(entry)
            crc32 = zlib.crc32(chunk, crc32)
            _write_all(descriptor, chunk)
            _stop_if(abandoned)
    finally:
        os.close(descriptor)
    if written != entry.unpacked_bytes:
        raise _lying(entry)
    if crc32 != entry.crc32:
        raise _damaged(entry)


def _stop_if(abandoned: Callable[[], bool]) -> None:
    if abandoned():
        raise UnpackingAbandonedError


def _seek_to_data(file: BinaryIO, entry: Entry) -> None:
    """Go to the first byte of the data; the entry's own header must name it as the directory did."""
    file.seek(entry.offset)
    header = file.read(LOCAL.size)
    if len(header) < LOCAL.size:
        raise _damaged(entry)
    signature, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = LOCAL.unpack(header)
    if (
        signature != LOCAL_SIGNATURE
        or method != entry.method
        or flags & IS_ENCRYPTED
        or name_bytes != entry.raw_name_bytes
    ):
        raise _damaged(entry)
    if utf8_name(file.read(name_bytes), entry.flags) != entry.name:
        raise ArchiveError(f"The entry {quoted(entry.name)} has another name in the zip file's directory.")
    file.seek(extra_bytes, os.SEEK_CUR)


def _stored_chunks(file: BinaryIO, entry: Entry) -> Iterator[memoryview]:
    """The data as they stand in the file, in one buffer that is used again for every chunk."""
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, entry.packed_bytes)))
    left = entry.packed_bytes
    while left:
        count = file.readinto(buffer[:left])  # type: ignore[attr-defined]  # Files opened for reading have it.
        if not count:
            raise _damaged(entry)
        left -= count
        yield buffer[:count]


def _inflated_chunks(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The data inflated, at most one chunk at a time whatever they are packed from."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    left = entry.packed_bytes
    try:
        while not inflate.eof:
            packed = inflate.unconsumed_tail
            if not packed:
                packed = file.read(min(left, _PACKED_CHUNK_BYTES))
                left -= len(packed)
            chunk = inflate.decompress(packed, _CHUNK_BYTES)
            if not packed and not chunk:
                raise _damaged(entry)
            yield chunk
    except zlib.error as error:
        raise _damaged(entry) from error
    if left or inflate.unused_data:
        raise _lying(entry)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _lying(entry: Entry) -> ArchiveError:
    return ArchiveError(
        f"The entry {quoted(entry.name)} does not have the size that the zip file gives for it."
    )


def _damaged(entry: Entry) -> ArchiveError:
    return ArchiveError(f"The data of the entry {quoted(entry.name)} are damaged; make the zip again.")
