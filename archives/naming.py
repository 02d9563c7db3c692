"""Which names a zip's entries may have, one by one and together.

Pure functions that ``inspection`` asks. A name is safe when it means the same file, below the directory that
it is unpacked into, to every program and on every operating system that a caller or a model may use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

from archives.errors import ArchiveError, ArchiveTooLargeError, quoted
from archives.limits import ZipLimits

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
_DRIVE = re.compile("[A-Za-z]:")


def check_name(name: bytes, limits: ZipLimits) -> None:
    """Raise ``ArchiveError`` unless the UTF-8 ``name`` of an entry is safe; directories end in a slash."""
    text = name.decode("utf-8")
    if not text:
        raise ArchiveError("The zip file holds an entry without a name.")
    if _CONTROL_CHARACTER.search(text):
        raise ArchiveError(f"The name of the entry {quoted(text)} contains a control character.")
    if "\\" in text:
        raise ArchiveError(
            f"The name of the entry {quoted(text)} contains a backslash; use / between directories."
        )
    if text.startswith("/") or _DRIVE.match(text):
        raise ArchiveError(f"The name of the entry {quoted(text)} is absolute; names must be relative.")
    _check_components(name.removesuffix(b"/").split(b"/"), name, limits)


def _check_components(components: list[bytes], name: bytes, limits: ZipLimits) -> None:
    if len(name) > limits.max_path_bytes:
        raise ArchiveError(
            f"The name of the entry {quoted(name)} is {len(name):,} bytes long;"
            f" at most {limits.max_path_bytes:,} are accepted."
        )
    if len(components) > limits.max_depth:
        raise ArchiveError(
            f"The entry {quoted(name)} lies {len(components):,} directories deep;"
            f" at most {limits.max_depth:,} are accepted."
        )
    for component in components:
        if component == b"..":
            raise ArchiveError(f'The name of the entry {quoted(name)} leads out of the zip with "..".')
        if component in {b"", b"."}:
            raise ArchiveError(f'The name of the entry {quoted(name)} contains an empty part or ".".')
        if len(component) > limits.max_name_bytes:
            raise ArchiveError(
                f"A part of the name of the entry {quoted(name)} is {len(component):,} bytes long;"
                f" at most {limits.max_name_bytes:,} are accepted."
            )


def check_names_together(names: Iterable[bytes], max_inodes: int) -> int:
    """Give how many directories the checked ``names`` make, those that are only implied by a path included.

    Raises ``ArchiveError`` where two names cannot both be unpacked on every system, ``ArchiveTooLargeError``
    where files and directories together are more than ``max_inodes``.

    In the order of their bytes the names below one directory follow one another, so each directory is met
    once and the work grows with what would be made, however the names are chosen.
    """
    tree = _Tree(max_inodes)
    for name in sorted(names):
        tree.add(name)
    return tree.directories


class _Tree:
    """The files and directories that names make.

    Each is known by a digest of its path as a system without upper and lower case sees it: 16 bytes where
    such a path may take three times the room of the name. A chance match would only refuse a zip.
    """

    def __init__(self, max_inodes: int) -> None:
        self.directories = 0
        self._max_inodes = max_inodes
        # The digest of each file and directory, with the name of the entry that made it.
        self._makers: dict[bytes, bytes] = {}
        # The directories on the way to the present name, each with its digest; paths end in a slash.
        self._way: list[tuple[bytes, bytes]] = [(b"", bytes(16))]

    def add(self, name: bytes) -> None:
        """Make the file or directory ``name``; names come in the order of their bytes."""
        while not name.startswith(self._way[-1][0]):
            self._way.pop()
        begin = len(self._way[-1][0])
        if begin == len(name):
            raise _twice(name)
        while (slash := name.find(b"/", begin)) >= 0:
            self._way.append((name[: slash + 1], self._make(name, begin, slash)))
            self.directories += 1
            begin = slash + 1
        if begin < len(name):
            self._make(name, begin, len(name))

    def _make(self, name: bytes, begin: int, end: int) -> bytes:
        """Digest of the new file or directory that the bytes of ``name`` up to ``end`` are the path of."""
        digest = blake2b(self._way[-1][1] + _folded(name[begin:end]), digest_size=16).digest()
        if digest in self._makers:
            raise _collision(self._makers[digest], name, depth=len(self._way))
        self._makers[digest] = name
        if len(self._makers) > self._max_inodes:
            raise ArchiveTooLargeError(
                f"The zip file unpacks to more than {self._max_inodes:,} files and directories"
                " (a directory counts also where only a path names it); that is the most that is accepted."
            )
        return digest


def _folded(part: bytes) -> bytes:
    if part.isascii():
        return part.lower()
    text = unicodedata.normalize("NFC", part.decode("utf-8")).casefold()
    # Folding may take characters apart that others have composed.
    return unicodedata.normalize("NFC", text).encode("utf-8")


def _collision(first: bytes, second: bytes, depth: int) -> ArchiveError:
    """Why the paths of ``depth`` parts that two names begin with cannot both be made."""
    first_path, second_path = (b"/".join(name.split(b"/")[:depth]) for name in (first, second))
    if first_path != second_path:
        return ArchiveError(
            f"The names {quoted(first_path)} and {quoted(second_path)} in the zip file"
            " differ only in upper and lower case."
        )
    if first == second:
        return _twice(first)
    return ArchiveError(f"The zip file holds {quoted(first_path)} both as a file and as a directory.")


def _twice(name: bytes) -> ArchiveError:
    return ArchiveError(f"The zip file holds the entry {quoted(name)} twice.")
