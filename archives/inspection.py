"""The check that every zip from a stranger passes before anything else looks at it.

The private API enters with an upload, ``unpacking`` with every zip again. Only the directory at the zip's
end is read, never the data of an entry, so a bad zip costs the same few milliseconds whatever it claims to
hold. What the directory cannot show (a damaged entry, a size that is a lie) is found while unpacking.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import BinaryIO

from archives.directory import Entry, locate_directory, read_entries
from archives.errors import ArchiveError, ArchiveTooLargeError, quoted
from archives.format import (
    DEFLATED,
    IS_ENCRYPTED,
    IS_MASKED,
    IS_PATCH_DATA,
    IS_STRONGLY_ENCRYPTED,
    LOCAL,
    STORED,
)
from archives.limits import ZipLimits
from archives.naming import check_name, check_names_together

# Every zip program writes these two unless told otherwise. The others are refused: LZMA and Zstandard let the
# zip choose how much memory unpacking takes, bzip2 reaches a million to one, the rest are hardly ever seen.
_NAMES_OF_METHODS = {
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
    99: "AES",
}
_ENCRYPTED = IS_ENCRYPTED | IS_STRONGLY_ENCRYPTED | IS_MASKED
# What one directory takes on the disk with the file systems in use, however little lies in it.
_DIRECTORY_BYTES = 4_096
# The most that deflate can pack into one byte (https://zlib.net/zlib_tech.html), and the room that a short or
# empty stream takes.
_MAX_DEFLATE_RATIO = 1_032
_DEFLATE_SLACK_BYTES = 1_024
_SPECIAL_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class ZipFacts:
    """How many entries a zip holds (directories too), and their size in bytes once unpacked."""

    entries: int
    unpacked_bytes: int


def inspect_zip(file: BinaryIO, limits: ZipLimits) -> ZipFacts:
    """Check the whole zip in ``file`` from its directory.

    ``file`` must be seekable; it is read in a few pieces of at most 1 MiB and left at no particular position.
    A zip without entries is sound: a model may need no input. Raises ``ArchiveError``.
    """
    return facts_of(inspected_entries(file, limits))


def facts_of(entries: list[Entry]) -> ZipFacts:
    """The sums over ``entries``."""
    return ZipFacts(len(entries), sum(entry.unpacked_bytes for entry in entries))


def inspected_entries(file: BinaryIO, limits: ZipLimits) -> list[Entry]:
    """Like ``inspect_zip``, but gives the entries, in the order in which their data lie in the file."""
    location = locate_directory(file, limits)
    entries: list[Entry] = []
    unpacked_bytes = 0
    for entry in read_entries(file, location, limits):
        check_name(entry.name, limits)
        _check_kind(entry)
        _check_sizes(entry)
        unpacked_bytes += entry.unpacked_bytes
        if unpacked_bytes > limits.max_unpacked_bytes:
            raise ArchiveTooLargeError(
                f"The zip file unpacks to more than {limits.max_unpacked_bytes:,} bytes;"
                f" the entry {quoted(entry.name)} passes that limit."
            )
        entries.append(entry)
    entries.sort(key=lambda entry: entry.offset)
    _check_overlaps(entries, location.offset)
    _check_ratio(unpacked_bytes, location.offset + location.size_bytes, limits)
    directories = check_names_together((entry.name for entry in entries), limits.max_entries)
    if unpacked_bytes + directories * _DIRECTORY_BYTES > limits.max_unpacked_bytes:
        raise ArchiveTooLargeError(
            f"The zip file unpacks to more than {limits.max_unpacked_bytes:,} bytes,"
            f" counting {_DIRECTORY_BYTES:,} for each of its {directories:,} directories."
        )
    return entries


def _check_kind(entry: Entry) -> None:
    if entry.flags & _ENCRYPTED:
        raise ArchiveError(f"The entry {quoted(entry.name)} is encrypted; send the zip without a password.")
    if entry.flags & IS_PATCH_DATA or entry.method not in {STORED, DEFLATED}:
        method = _NAMES_OF_METHODS.get(entry.method, f"number {entry.method}")
        raise ArchiveError(
            f"The entry {quoted(entry.name)} is packed with an unsupported method ({method});"
            " make the zip with deflate, or without compression."
        )
    kind = stat.S_IFMT(entry.mode)
    if kind in _SPECIAL_KINDS:
        raise ArchiveError(
            f"The entry {quoted(entry.name)} is {_SPECIAL_KINDS[kind]};"
            " only files and directories are accepted."
        )
    if kind == stat.S_IFDIR and not entry.name.endswith(b"/"):
        raise ArchiveError(f"The entry {quoted(entry.name)} is marked as a directory but named like a file.")


def _check_sizes(entry: Entry) -> None:
    if entry.name.endswith(b"/"):
        lies = entry.unpacked_bytes > 0
    elif entry.method == STORED:
        lies = entry.packed_bytes != entry.unpacked_bytes
    else:
        lies = entry.unpacked_bytes > entry.packed_bytes * _MAX_DEFLATE_RATIO + _DEFLATE_SLACK_BYTES
    if lies:
        raise ArchiveError(
            f"The size that the zip file gives for the entry {quoted(entry.name)} cannot be true."
        )


def _check_overlaps(entries: list[Entry], directory_offset: int) -> None:
    """``entries`` in the order of their offsets; each needs room up to the next one, or to the directory."""
    ends = [entry.offset for entry in entries[1:]] + [directory_offset]
    for entry, end in zip(entries, ends, strict=False):
        if entry.offset + LOCAL.size + entry.raw_name_bytes + entry.packed_bytes > end:
            raise ArchiveError(
                f"The data of the entry {quoted(entry.name)} overlap something else in the zip file."
            )


def _check_ratio(unpacked_bytes: int, zip_bytes: int, limits: ZipLimits) -> None:
    if unpacked_bytes > limits.ratio_free_bytes and unpacked_bytes > zip_bytes * limits.max_ratio:
        raise ArchiveTooLargeError(
            f"The zip file would unpack to {unpacked_bytes:,} bytes, {unpacked_bytes / zip_bytes:,.0f} times"
            f" its own size; above {limits.ratio_free_bytes:,} bytes at most {limits.max_ratio:,.0f} times"
            " is accepted."
        )
