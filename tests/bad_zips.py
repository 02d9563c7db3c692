"""Zips that must be refused, one builder each, and the words by which the refusal is known.

Built byte by byte, because no library writes them. Unit tests hand them to ``archives``, end-to-end tests to
the server. None takes more than a few megabytes or milliseconds to build.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RawEntry:
    """An entry as it is written, true or not."""

    name: bytes
    data: bytes = b"data"
    method: int = 0
    flags: int = 0
    mode: int = 0o100644
    claimed_bytes: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    crc32: int | None = None


def raw_zip(entries: list[RawEntry], *, claimed_entries: int | None = None, disk: int = 0) -> bytes:
    """A zip of ``entries``, whatever they say of themselves."""
    body = bytearray()
    directory = bytearray()
    for entry in entries:
        offset = len(body) if entry.offset is None else entry.offset
        packed = _deflated(entry.data) if entry.method == 8 else entry.data
        size = len(entry.data) if entry.claimed_bytes is None else entry.claimed_bytes
        crc32 = zlib.crc32(entry.data) if entry.crc32 is None else entry.crc32
        local_name = entry.name if entry.local_name is None else entry.local_name
        if entry.offset is None:
            body += struct.pack(
                "<4s5H3L2H", b"PK\3\4", 20, entry.flags, entry.method, 0, 33,
                crc32, len(packed), size, len(local_name), 0,
            ) + local_name + packed  # fmt: skip
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 3 << 8 | 20, 20, entry.flags, entry.method, 0, 33,
            crc32, len(packed), size, len(entry.name), 0, 0, 0, 0, entry.mode << 16, offset,
        ) + entry.name  # fmt: skip
    count = len(entries) if claimed_entries is None else claimed_entries
    end = struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, count, count, len(directory), len(body), 0)
    return bytes(body + directory + end)


def named(*names: bytes) -> Callable[[], bytes]:
    return lambda: raw_zip([RawEntry(name) for name in names])


def with_entry(entry: RawEntry) -> Callable[[], bytes]:
    return lambda: raw_zip([RawEntry(b"good.txt"), entry])


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def _zip64(*, entries: int, size: int, offset: int) -> bytes:
    """Nothing but the end of a zip64 that claims a directory of any size."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return record + locator + end


def _many_entries(count: int) -> bytes:
    one = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0)
    directory = b"".join(one + b"%06d" % number for number in range(count))
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), 0
    )  # fmt: skip
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return directory + record + locator + end


def _directory_bomb() -> bytes:
    """64,001 directories from 500 entries in 300 KB."""
    chains = [b"/".join([b"%03d" % number, *[b"d"] * 127]) + b"/" for number in range(500)]
    return raw_zip([RawEntry(chain, data=b"") for chain in chains])


def long_names(count: int, stem: bytes) -> list[bytes]:
    """As many names that all differ in their last digits, each ``stem`` long and a little more."""
    return [stem + b"%05d" % number for number in range(count)]


def _ratio_bomb() -> bytes:
    """Ten gigabytes of zeros in ten entries, each of which deflate really reaches."""
    kernel = _deflated(bytes(16 * 1024 * 1024))
    # Deflate packs zeros at a fixed rate: what matters to a check of the directory is the claim beside it.
    entries = [
        RawEntry(b"%d.bin" % number, data=kernel * 60, claimed_bytes=60 * 16 * 1024 * 1024, method=0)
        for number in range(10)
    ]
    return _restated_as_deflated(entries)


def _restated_as_deflated(entries: list[RawEntry]) -> bytes:
    """The entries' data as they stand, called deflated."""
    zipped = bytearray(raw_zip(entries))
    position = 0
    while (position := zipped.find(b"PK\1\2", position)) >= 0:
        struct.pack_into("<H", zipped, position + 10, 8)
        position += 4
    return bytes(zipped)


def _overlapping() -> bytes:
    first = RawEntry(b"a.bin", data=b"x" * 1000)
    return raw_zip([first, replace(first, name=b"b.bin", offset=0)])


BAD_ZIPS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "empty"),
    "not a zip": (lambda: b"%PDF-1.7 and so on" * 100, "not a zip"),
    "text of one byte": (lambda: b"P", "not a zip"),
    "truncated": (lambda: raw_zip([RawEntry(b"a", data=bytes(5000))])[:-60], "cut off"),
    "beginning missing": (lambda: raw_zip([RawEntry(b"a", data=bytes(5000))])[100:], "damaged"),
    "one of several disks": (lambda: raw_zip([RawEntry(b"a")], disk=1), "split zip"),
    "parent directory": (named(b"a/../../evil.txt"), '".."'),
    "parent directory first": (named(b"../evil.txt"), '".."'),
    "absolute": (named(b"/etc/passwd"), "absolute"),
    "drive letter": (named(b"C:/evil.txt"), "absolute"),
    "backslash": (named(b"a\\evil.txt"), "backslash"),
    "dot": (named(b"./evil.txt"), "empty part"),
    "empty part": (named(b"a//evil.txt"), "empty part"),
    "no name": (named(b""), "without a name"),
    "only a slash": (named(b"/"), "absolute"),
    "NUL in a name": (named(b"evil\x00.txt"), "control character"),
    "newline in a name": (named(b"evil\n.txt"), "control character"),
    "long name": (named(b"n" * 256), "256 bytes"),
    "long path": (named(b"/".join([b"n" * 100] * 60)), "bytes long"),
    "deep path": (named(b"/".join([b"d"] * 200)), "deep"),
    "not UTF-8 though it says so": (with_entry(RawEntry(b"\xff.txt", flags=1 << 11)), "UTF-8"),
    "duplicate": (named(b"a.txt", b"b.txt", b"a.txt"), "twice"),
    "case clash": (named(b"a.txt", b"b.txt", b"A.txt"), "upper and lower case"),
    "case clash of one letter": (named(b"a", b"A"), "upper and lower case"),
    "duplicate of one letter": (named(b"a", b"b", b"a"), "twice"),
    "duplicate directory": (lambda: raw_zip([RawEntry(b"a/", data=b"")] * 2), "twice"),
    "case clash of accents": (named("\u03aa\u0301".encode(), "\u0390".encode()), "upper and lower case"),
    "case clash of a file and a directory": (named(b"A", b"a/b"), "upper and lower case"),
    "case clash of directories": (named(b"Images/1", b"images/2"), "upper and lower case"),
    "file and directory": (named(b"a", b"b", b"a/b"), "both as a file and as a directory"),
    "file and directory entry": (named(b"a", b"a/"), "cannot be true"),
    "symlink": (with_entry(RawEntry(b"link", data=b"/etc/passwd", mode=0o120777)), "symbolic link"),
    "device": (with_entry(RawEntry(b"null", data=b"", mode=0o020666)), "device"),
    "FIFO": (with_entry(RawEntry(b"pipe", data=b"", mode=0o010666)), "named pipe"),
    "directory named as a file": (
        with_entry(RawEntry(b"d", data=b"", mode=0o040755)),
        "marked as a directory",
    ),
    "encrypted": (with_entry(RawEntry(b"secret", flags=1)), "encrypted"),
    "odd method": (with_entry(RawEntry(b"a", method=97)), "unsupported method (number 97)"),
    "LZMA": (with_entry(RawEntry(b"a", method=14)), "unsupported method (LZMA)"),
    "lying size, stored": (with_entry(RawEntry(b"a", claimed_bytes=10**6)), "cannot be true"),
    "lying size, deflated": (with_entry(RawEntry(b"a", method=8, claimed_bytes=4 * 10**9)), "cannot be true"),
    "directory with data": (with_entry(RawEntry(b"d/", data=b"hidden")), "cannot be true"),
    "overlapping entries": (_overlapping, "overlap"),
    "entry beyond the file": (with_entry(RawEntry(b"a", offset=10**9)), "overlap"),
    "ratio bomb": (_ratio_bomb, "times its own size"),
    "directory bomb": (_directory_bomb, "files and directories"),
    "names that grow when read": (
        # 15 MiB in code page 437, three times that in UTF-8.
        lambda: raw_zip([RawEntry(n, data=b"") for n in long_names(45_000, (b"\xb0" * 70 + b"/") * 4)]),
        "names in the zip file",
    ),
    "200,000 entries": (lambda: _many_entries(200_000), "200,000 entries"),
    "more entries than it says": (
        lambda: raw_zip([RawEntry(b"%d" % n) for n in range(20)], claimed_entries=3),
        "more entries",
    ),
    "fewer entries than it says": (lambda: raw_zip([RawEntry(b"a")], claimed_entries=9), "damaged"),
    "directory of 2 to the 63": (lambda: _zip64(entries=5, size=2**63, offset=0), "names in the zip file"),
    "2 to the 63 entries": (lambda: _zip64(entries=2**63, size=46, offset=0), "entries"),
    "directory at 2 to the 63": (lambda: _zip64(entries=1, size=46, offset=2**63), "damaged"),
}

# These show only when they are unpacked.
BAD_WHEN_UNPACKED: dict[str, tuple[Callable[[], bytes], str]] = {
    "size too small": (with_entry(RawEntry(b"a", data=bytes(9000), method=8, claimed_bytes=5000)), "size"),
    "size too large": (with_entry(RawEntry(b"a", data=bytes(9000), method=8, claimed_bytes=9500)), "size"),
    "wrong checksum": (with_entry(RawEntry(b"a", crc32=1)), "damaged"),
    "another name beside the data": (with_entry(RawEntry(b"a", local_name=b"b")), "another name"),
    "not deflated at all": (
        lambda: _restated_as_deflated([RawEntry(b"a", data=b"\xff" * 100)]),
        "damaged",
    ),
}
