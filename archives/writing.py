"""The bytes of a zip that is written in one pass to something that cannot seek.

``packing`` enters here with what it read; this room touches no file. Python's own zipfile would serve, were
it not for two things: it keeps 1.1 KB of memory for every entry until the end (the directory itself takes a
tenth of that), and it cannot put sizes before the data of a small file, which readers that stream need.
Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import stat
import struct
import time
import zlib
from dataclasses import dataclass

from archives.format import (
    CENTRAL,
    CENTRAL_SIGNATURE,
    DESCRIPTOR_SIGNATURE,
    END,
    END64,
    END64_LOCATOR,
    END64_LOCATOR_SIGNATURE,
    END64_SIGNATURE,
    END_SIGNATURE,
    IS_UTF8,
    LOCAL,
    LOCAL_SIGNATURE,
    MAX16,
    MAX32,
    SIZES_FOLLOW,
    TIMESTAMP_EXTRA_ID,
    ZIP64_EXTRA_ID,
)

# Info-ZIP's extended timestamp: the time of change in UTC seconds, where the format's own field has a local
# time of even seconds.
_TIMESTAMP_EXTRA = struct.Struct("<HHBI")
_DOS_EPOCH, _DOS_END = 315_532_800, 4_294_967_295

_MADE_ON_UNIX = 3 << 8
_VERSION, _VERSION_ZIP64 = 20, 45


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of an entry before its data: ``name`` in UTF-8, a directory's with a slash at its end."""

    name: bytes
    mode: int  # As st_mode, kind included.
    modified_seconds: int
    method: int


class ZipWriter:
    """Gives the bytes of a zip in their order; remembers only the directory that ends it."""

    def __init__(self) -> None:
        self._directory = bytearray()
        self._entries = 0
        self._offset = 0

    def whole(self, member: Member, data: bytes, crc32: int, unpacked_bytes: int) -> list[bytes]:
        """An entry whose packed ``data`` are at hand."""
        offset = self._offset
        header = _local_header(member, 0, crc32, len(data), unpacked_bytes, _timestamp(member))
        self._remember(member, 0, crc32, len(data), unpacked_bytes, offset)
        self._offset += len(header) + len(data)
        return [header, data]

    def begin(self, member: Member, expected_bytes: int) -> bytes:
        """The header of an entry whose size and checksum come after its data, in ``end``."""
        extra = _timestamp(member)
        size = 0
        if _needs_zip64(expected_bytes):
            extra += struct.pack("<2H2Q", ZIP64_EXTRA_ID, 16, 0, 0)
            size = MAX32
        return _local_header(member, SIZES_FOLLOW, 0, size, size, extra)

    def end(self, member: Member, header: bytes, crc32: int, packed_bytes: int, unpacked_bytes: int) -> bytes:
        """What follows the data of the entry that ``begin`` gave ``header`` for."""
        form = "<4sL2Q" if _needs_zip64(unpacked_bytes) else "<4sL2L"
        descriptor = struct.pack(form, DESCRIPTOR_SIGNATURE, crc32, packed_bytes, unpacked_bytes)
        self._remember(member, SIZES_FOLLOW, crc32, packed_bytes, unpacked_bytes, self._offset)
        self._offset += len(header) + packed_bytes + len(descriptor)
        return descriptor

    def finish(self) -> list[bytes]:
        """The directory and the end of the zip."""
        size, entries, offset = len(self._directory), self._entries, self._offset
        end = b""
        if entries >= MAX16 or size >= MAX32 or offset >= MAX32:
            end = END64.pack(
                END64_SIGNATURE, END64.size - 12, _MADE_ON_UNIX | _VERSION_ZIP64, _VERSION_ZIP64, 0, 0,
                entries, entries, size, offset,
            ) + END64_LOCATOR.pack(END64_LOCATOR_SIGNATURE, 0, offset + size, 1)  # fmt: skip
        entries, size, offset = min(entries, MAX16), min(size, MAX32), min(offset, MAX32)
        end += END.pack(END_SIGNATURE, 0, 0, entries, entries, size, offset, 0)
        return [bytes(self._directory), end]

    def _remember(
        self, member: Member, flags: int, crc32: int, packed: int, unpacked: int, offset: int
    ) -> None:
        large = [value for value in (unpacked, packed, offset) if value >= MAX32]
        extra = _timestamp(member)
        if large:
            extra += struct.pack(f"<2H{len(large)}Q", ZIP64_EXTRA_ID, 8 * len(large), *large)
        version = _VERSION_ZIP64 if large else _VERSION
        attributes = member.mode << 16 | (0x10 if stat.S_ISDIR(member.mode) else 0)
        self._directory += CENTRAL.pack(
            CENTRAL_SIGNATURE, _MADE_ON_UNIX | version, version, flags | _utf8_flag(member), member.method,
            *_dos_time(member), crc32, min(packed, MAX32), min(unpacked, MAX32),
            len(member.name), len(extra), 0, 0, 0, attributes, min(offset, MAX32),
        )  # fmt: skip
        self._directory += member.name + extra
        self._entries += 1


def _local_header(member: Member, flags: int, crc32: int, packed: int, unpacked: int, extra: bytes) -> bytes:
    version = _VERSION_ZIP64 if unpacked == MAX32 else _VERSION
    return LOCAL.pack(
        LOCAL_SIGNATURE, version, flags | _utf8_flag(member), member.method, *_dos_time(member),
        crc32, packed, unpacked, len(member.name), len(extra),
    ) + member.name + extra  # fmt: skip


def _needs_zip64(size_bytes: int) -> bool:
    """Whether a size, or what deflate might make of it at worst, takes more than 32 bits."""
    return size_bytes + size_bytes // 1000 + 1024 >= MAX32


def _timestamp(member: Member) -> bytes:
    return _TIMESTAMP_EXTRA.pack(TIMESTAMP_EXTRA_ID, 5, 1, _clamped(member.modified_seconds))


def _dos_time(member: Member) -> tuple[int, int]:
    moment = time.gmtime(_clamped(member.modified_seconds))
    clock = moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
    return clock, (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday


def _clamped(seconds: int) -> int:
    """``seconds`` moved into the years from 1980 to 2106, which are what both fields can hold."""
    return min(max(seconds, _DOS_EPOCH), _DOS_END)


def _utf8_flag(member: Member) -> int:
    return 0 if member.name.isascii() else IS_UTF8


def deflate(data: bytes, level: int) -> bytes:
    """``data`` packed as a zip holds them."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()
