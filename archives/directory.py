"""Reading a zip's central directory, and nothing else of it.

``inspection`` enters here. The directory is found from the end of the file, its entry count and size are
held against the limits before any of it is read, and then it is read piece by piece: a handful of reads
whatever the zip holds, so that the file may as well lie behind ranged requests. Nothing is believed that
the file says twice in two ways. Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from archives.errors import ArchiveError, ArchiveTooLargeError, quoted
from archives.format import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    END,
    END64,
    END64_LOCATOR,
    END64_LOCATOR_SIGNATURE,
    END64_SIGNATURE,
    END_SIGNATURE,
    IS_UTF8,
    LOCAL_SIGNATURE,
    MAX16,
    MAX32,
    ZIP64_EXTRA_ID,
)
from archives.limits import ZipLimits

_MAX_COMMENT_BYTES = MAX16
_READ_BYTES = 1024 * 1024


class Entry(NamedTuple):
    """One entry as the directory describes it; its ``name`` is UTF-8, whatever stands in the file."""

    name: bytes
    raw_name_bytes: int
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    unpacked_bytes: int
    mode: int  # As st_mode; 0 where the zip was not made on a Unix.
    offset: int  # Of its local header.


class DirectoryLocation(NamedTuple):
    """Where the directory lies, in bytes from the start of the file, and how many entries it says it has."""

    offset: int
    size_bytes: int
    entries: int


def locate_directory(file: BinaryIO, limits: ZipLimits) -> DirectoryLocation:
    """Find the directory and hold its size and entry count against ``limits``; raises ``ArchiveError``."""
    file_bytes = file.seek(0, io.SEEK_END)
    if file_bytes == 0:
        raise ArchiveError("The zip file is empty.")
    tail_offset = max(0, file_bytes - END.size - _MAX_COMMENT_BYTES - END64_LOCATOR.size - END64.size)
    tail = _read_at(file, tail_offset, file_bytes - tail_offset)
    position = _find_end(file, tail)
    _, disk, directory_disk, here, entries, size, offset, _ = END.unpack_from(tail, position)
    end = tail_offset + position
    if tail[max(0, position - END64_LOCATOR.size) :].startswith(END64_LOCATOR_SIGNATURE):
        short = (disk, directory_disk, here, entries, size, offset)
        end, (disk, directory_disk, here, entries, size, offset) = _read_end64(
            file, tail, position, tail_offset, short
        )
    if disk or directory_disk or here != entries:
        raise ArchiveError("The zip file is one part of a split zip; join the parts into one file first.")
    if entries > limits.max_entries:
        raise ArchiveTooLargeError(
            f"The zip file holds {entries:,} entries; at most {limits.max_entries:,} are accepted."
        )
    if size > limits.max_directory_bytes:
        raise _too_many_bytes(f"{size:,}", limits)
    if offset + size != end:
        raise ArchiveError(
            "The zip file is damaged: its directory does not lie where its end says"
            " (part of it is missing, or something stands before it)."
        )
    return DirectoryLocation(offset, size, entries)


def read_entries(file: BinaryIO, location: DirectoryLocation, limits: ZipLimits) -> Iterator[Entry]:
    """Give every entry of the directory in its order; raises ``ArchiveError`` where it is not sound."""
    pieces = _Pieces(file, location)
    names_bytes = 0
    for _ in range(location.entries):
        fields = CENTRAL.unpack(pieces.take(CENTRAL.size))
        if fields[0] != CENTRAL_SIGNATURE:
            raise _damaged()
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        raw_name = pieces.take(name_bytes)
        extra = pieces.take(extra_bytes)
        pieces.take(comment_bytes)
        entry = _entry(fields, raw_name, extra)
        # A name in code page 437 takes up to three times its room as UTF-8, which is what is held in memory.
        names_bytes += len(entry.name)
        if names_bytes > limits.max_directory_bytes:
            raise _too_many_bytes(f"more than {limits.max_directory_bytes:,}", limits)
        yield entry
    if pieces.left:
        raise ArchiveError("The zip file is damaged: its directory holds more entries than its end says.")


class _Pieces:
    """The bytes of the directory in order, read in large pieces."""

    def __init__(self, file: BinaryIO, location: DirectoryLocation) -> None:
        self._file = file
        self._next_offset = location.offset
        self._unread = location.size_bytes
        self._buffer = b""
        self._position = 0

    @property
    def left(self) -> int:
        return self._unread + len(self._buffer) - self._position

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._buffer):
            if size > self.left:
                raise _damaged()
            rest = self._buffer[self._position :]
            piece = _read_at(self._file, self._next_offset, min(self._unread, max(_READ_BYTES, size)))
            self._next_offset += len(piece)
            self._unread -= len(piece)
            self._buffer, self._position, end = rest + piece, 0, size
        taken = self._buffer[self._position : end]
        self._position = end
        return taken


def _find_end(file: BinaryIO, tail: bytes) -> int:
    """Position of the end record in ``tail``: the last one whose comment reaches exactly to the end."""
    position = len(tail) - END.size
    while (position := tail.rfind(END_SIGNATURE, 0, max(0, position) + len(END_SIGNATURE))) >= 0:
        comment_bytes = int.from_bytes(tail[position + 20 : position + 22], "little")
        if position + END.size + comment_bytes == len(tail):
            return position
        position -= 1
    file.seek(0)
    if file.read(len(LOCAL_SIGNATURE)) == LOCAL_SIGNATURE:
        raise ArchiveError(
            "The zip file is cut off: the directory at its end is missing. Send the whole file."
        )
    raise ArchiveError("The file is not a zip file.")


_Counts = tuple[int, int, int, int, int, int]


def _read_end64(
    file: BinaryIO, tail: bytes, position: int, tail_offset: int, short: _Counts
) -> tuple[int, _Counts]:
    """Offset and fields of the zip64 end record; the short record must agree wherever it says something."""
    _, _, offset, disks = END64_LOCATOR.unpack_from(tail, position - END64_LOCATOR.size)
    locator_offset = tail_offset + position - END64_LOCATOR.size
    if disks > 1:
        raise ArchiveError("The zip file is one part of a split zip; join the parts into one file first.")
    if offset + END64.size > locator_offset:
        raise _damaged()
    record = END64.unpack(_read_at(file, offset, END64.size))
    if record[0] != END64_SIGNATURE or offset + 12 + record[1] != locator_offset:
        raise _damaged()
    full: _Counts = record[4:10]
    limits = (MAX16, MAX16, MAX16, MAX16, MAX32, MAX32)
    for value, short_value, limit in zip(full, short, limits, strict=True):
        if short_value not in {value, limit}:
            raise _damaged()
    return offset, full


def _entry(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> Entry:
    flags, method = fields[3:5]
    crc32, packed, unpacked = fields[7:10]
    disk, _, attributes, offset = fields[13:17]
    if MAX32 in {packed, unpacked, offset} or disk == MAX16:
        unpacked, packed, offset, disk = _zip64_values(extra, raw_name, unpacked, packed, offset, disk)
    if disk:
        raise ArchiveError(f"The entry {quoted(raw_name)} lies in another part of a split zip.")
    # Only zips made on Unix keep a mode in the upper half, yet the bits of a link are suspect from anyone.
    mode = attributes >> 16
    name = utf8_name(raw_name, flags)
    return Entry(name, len(raw_name), flags, method, crc32, packed, unpacked, mode, offset)


def _zip64_values(
    extra: bytes, raw_name: bytes, unpacked: int, packed: int, offset: int, disk: int
) -> tuple[int, int, int, int]:
    """The values that were too large for the entry itself, from its extra field (4.5.3)."""
    field = _extra_field(extra, ZIP64_EXTRA_ID)
    position = 0
    values: list[int] = []
    for value, size in ((unpacked, 8), (packed, 8), (offset, 8), (disk, 4)):
        if value != (MAX16 if size == 4 else MAX32):
            values.append(value)
            continue
        if position + size > len(field):
            raise ArchiveError(
                f"The zip file is damaged: the sizes of the entry {quoted(raw_name)} are missing."
            )
        values.append(int.from_bytes(field[position : position + size], "little"))
        position += size
    return values[0], values[1], values[2], values[3]


def _extra_field(extra: bytes, wanted: int) -> bytes:
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        position += 4
        if kind == wanted:
            return extra[position : position + size]
        position += size
    return b""


def utf8_name(raw_name: bytes, flags: int) -> bytes:
    """The name as UTF-8; raises ``ArchiveError`` where it claims to be that and is not.

    Names that are valid UTF-8 are taken as that even where the flag for it is missing, because macOS never
    sets it; all others are code page 437, as the format says. A name that claims to be UTF-8 must be.
    """
    try:
        raw_name.decode("utf-8")
    except UnicodeDecodeError as error:
        if flags & IS_UTF8:
            raise ArchiveError(f"The name of the entry {quoted(raw_name)} is not valid UTF-8.") from error
        return raw_name.decode("cp437").encode("utf-8")
    return raw_name


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = b""
    while len(data) < size:
        piece = file.read(size - len(data))
        if not piece:
            raise ArchiveError("The zip file is cut off: it ends before its directory does.")
        data = data + piece if data else piece
    return data


def _too_many_bytes(taken: str, limits: ZipLimits) -> ArchiveTooLargeError:
    return ArchiveTooLargeError(
        f"The names in the zip file take {taken} bytes; at most {limits.max_directory_bytes:,} are accepted."
    )


def _damaged() -> ArchiveError:
    return ArchiveError("The zip file is damaged: its directory cannot be read.")
