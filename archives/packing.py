"""Packing a directory that an untrusted program wrote, and has stopped writing, into a zip.

The consumer enters with a model's output. The tree is surveyed first, so that one that is too large is
refused before a byte of it is read, and then streamed; at no time does the zip lie on the disk or in
memory. Nothing is followed: links, pipes, sockets and devices are left out, because losing a whole result
over a stray link helps nobody, and each is named in ``Packing.notes``, because leaving it out in silence
would be worse. Names that our own ``inspection`` would refuse (not UTF-8, control characters, backslashes)
are spelled with ``%XX`` and noted too. Hard links are the files that they are. The order is that of the
names' bytes; times of change are kept.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from archives.errors import EmptyOutputError, OutputInvalidError, OutputTooLargeError, quoted
from archives.format import DEFLATED, STORED
from archives.limits import OutputLimits
from archives.tree import Node, changed, walk
from archives.writing import Member, ZipWriter, deflate

# Large enough that the disk sets the pace, small enough that it does not count against a process's memory.
_CHUNK_BYTES = 1024 * 1024
# Small files are gathered up to this, so that 100,000 of them do not become 300,000 writes on a socket.
_GATHER_BYTES = 256 * 1024
# Whether packing pays is tried on so much of a file. Level 1 is three times as fast as the default level and
# seldom a sixth larger; what gains less than a tenth (pictures, npz, gzip) is stored.
_TRIAL_BYTES = 64 * 1024
_LEVEL = 1
_WORTHWHILE = 0.9
_MAX_NOTES = 20
_MAX_COMPONENT_BYTES = 255
# PATH_MAX without its end: nobody could unpack, or open, what lies deeper.
_MAX_PATH_BYTES = 4_095
# Names are held in memory until the end of the zip, which repeats them: 100,000 paths of 600 bytes fit.
_MAX_NAMES_BYTES = 64 * 1024 * 1024
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_UNPORTABLE = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]|(?<=^[A-Za-z]):")
_SPECIAL_KINDS = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class Packing(Iterator[bytes]):
    """The bytes of a zip, chunk by chunk; raises ``OutputError`` where the tree changes underneath it.

    ``notes``: what was left out or renamed, one sentence each; complete once the bytes are exhausted.
    """

    def __init__(self, root: Path, limits: OutputLimits) -> None:
        self._notes: list[str] = []
        self._more_notes = 0
        self._renamed: set[bytes] = set()
        self._limits = limits
        self._bytes_left = limits.max_bytes
        self._writer = ZipWriter()
        self._chunks = _gathered(self._pieces(root))

    def __next__(self) -> bytes:
        """The next chunk of the zip."""
        return next(self._chunks)

    @property
    def notes(self) -> list[str]:
        """Sentences about what the zip does not hold, or holds under another name; the first twenty."""
        more = [f"{self._more_notes:,} more notes of this kind are left out."] if self._more_notes else []
        return self._notes + more

    def _pieces(self, root: Path) -> Iterator[bytes]:
        for node in walk(root, self._limits.max_files, _MAX_PATH_BYTES):
            if node.is_directory:
                member = _describe(node, self._portable(node) + b"/", stat.S_IFDIR | 0o755, STORED)
                yield from self._writer.whole(member, b"", 0, 0)
            elif node.is_file:
                yield from self._file_pieces(node)
            else:
                kind = _SPECIAL_KINDS.get(stat.S_IFMT(node.status.st_mode), "a device")
                self._note(f"{quoted(node.path)} is {kind} and was left out of the output.")
        yield from self._writer.finish()

    def _file_pieces(self, node: Node) -> Iterator[bytes]:
        """One file, as long as it was when it was opened."""
        descriptor = _open_file(node)
        try:
            size_bytes = os.fstat(descriptor).st_size
            self._bytes_left -= size_bytes
            if self._bytes_left < 0:
                raise _too_many_bytes(self._limits)
            first = _read(descriptor, min(size_bytes, _CHUNK_BYTES), node)
            # Readable whatever the model left, or the person who asked for the result could not open it.
            mode = stat.S_IFREG | 0o644 | node.status.st_mode & 0o111
            member = _describe(node, self._portable(node), mode, _method_for(first))
            if size_bytes == len(first):
                data = deflate(first, _LEVEL) if member.method == DEFLATED else first
                yield from self._writer.whole(member, data, zlib.crc32(first), size_bytes)
            else:
                yield from self._large_file_pieces(node, descriptor, member, size_bytes, first)
        finally:
            os.close(descriptor)

    def _large_file_pieces(
        self, node: Node, descriptor: int, member: Member, size_bytes: int, piece: bytes
    ) -> Iterator[bytes]:
        header = self._writer.begin(member, size_bytes)
        yield header
        compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        crc32 = packed_bytes = 0
        left = size_bytes
        while True:
            left -= len(piece)
            crc32 = zlib.crc32(piece, crc32)
            if member.method == DEFLATED:
                piece = compressor.compress(piece) + (b"" if left else compressor.flush())
            packed_bytes += len(piece)
            yield piece
            if not left:
                break
            piece = _read(descriptor, min(left, _CHUNK_BYTES), node)
        yield self._writer.end(member, header, crc32, packed_bytes, size_bytes)

    def _portable(self, node: Node) -> bytes:
        """The path that every zip program and system can take; what had to be respelled is noted."""
        text = node.path.decode("utf-8", "surrogateescape")
        path = _UNPORTABLE.sub(_percent, text).encode("utf-8")
        name = path.rsplit(b"/", 1)[-1]
        if name != node.name:
            position = bisect_left(node.siblings, name)
            taken = path in self._renamed or node.siblings[position : position + 1] == [name]
            if taken or len(name) > _MAX_COMPONENT_BYTES:
                raise OutputInvalidError(
                    f"The output holds {quoted(node.path)}, a name that no zip can carry."
                )
            self._renamed.add(path)
            self._note(f"{quoted(node.path)} is called {quoted(path)} in the output.")
        return path

    def _note(self, sentence: str) -> None:
        if len(self._notes) < _MAX_NOTES:
            self._notes.append(sentence)
        else:
            self._more_notes += 1


def pack_directory(root: Path, limits: OutputLimits, *, allow_empty: bool = False) -> Packing:
    """Survey ``root`` at once, then give its zip chunk by chunk, at most about 1 MiB each.

    Raises ``OutputTooLargeError`` (by apparent size, so a sparse file counts in full), ``EmptyOutputError``
    when there is nothing that a zip can hold (a directory is something) unless ``allow_empty``, and
    ``OutputInvalidError`` when a path is too long to be unpacked. Once chunks flow, only a tree that changes
    can still raise.
    """
    size_bytes = names_bytes = held = 0
    left_out = b""
    for names, node in enumerate(walk(root, limits.max_files, _MAX_PATH_BYTES), start=1):
        if names > limits.max_files:
            raise OutputTooLargeError(
                f"The output holds more than {limits.max_files:,} files and directories; write fewer,"
                " or raise the model's limit."
            )
        names_bytes += len(node.path)
        if names_bytes > _MAX_NAMES_BYTES:
            raise OutputTooLargeError(
                f"The names in the output take more than {_MAX_NAMES_BYTES:,} bytes; use shorter paths."
            )
        if node.is_file:
            size_bytes += node.status.st_size
            if size_bytes > limits.max_bytes:
                raise _too_many_bytes(limits)
        if node.is_file or node.is_directory:
            held += 1
        else:
            left_out = left_out or node.path
    if not held and not allow_empty:
        also = f" except {quoted(left_out)}, which is neither a file nor a directory" if left_out else ""
        raise EmptyOutputError(f"The output is empty: nothing was written{also}.")
    return Packing(root, limits)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces: small ones joined, large ones as they are."""
    waiting: list[bytes] = []
    waiting_bytes = 0
    for piece in pieces:
        waiting.append(piece)
        waiting_bytes += len(piece)
        if waiting_bytes >= _GATHER_BYTES:
            # Joining copies; a large piece goes on alone, after what waited before it.
            if len(piece) >= _GATHER_BYTES and len(waiting) > 1:
                waiting.pop()
                yield b"".join(waiting)
                waiting = [piece]
            yield b"".join(waiting)
            waiting, waiting_bytes = [], 0
    if waiting_bytes:
        yield b"".join(waiting)


def _open_file(node: Node) -> int:
    try:
        descriptor = os.open(node.name, _FILE_FLAGS, dir_fd=node.parent)
    except OSError as error:
        raise changed(node.path) from error
    status = os.fstat(descriptor)
    if (status.st_dev, status.st_ino) != (node.status.st_dev, node.status.st_ino):
        os.close(descriptor)
        raise changed(node.path)
    return descriptor


def _read(descriptor: int, size: int, node: Node) -> bytes:
    """The next ``size`` bytes, which the file had when it was opened."""
    data = os.read(descriptor, size)
    while len(data) < size:
        piece = os.read(descriptor, size - len(data))
        if not piece:
            raise changed(node.path)
        data += piece
    return data


def _method_for(beginning: bytes) -> int:
    sample = beginning[:_TRIAL_BYTES]
    return DEFLATED if len(zlib.compress(sample, _LEVEL)) < len(sample) * _WORTHWHILE else STORED


def _describe(node: Node, path: bytes, mode: int, method: int) -> Member:
    return Member(path, mode, int(node.status.st_mtime), method)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))


def _too_many_bytes(limits: OutputLimits) -> OutputTooLargeError:
    return OutputTooLargeError(
        f"The output is larger than {limits.max_bytes:,} bytes; write less, or raise the model's limit."
    )
