"""Which names a zip's entries may have, one by one and together.

Pure functions that ``inspection`` asks. A name is safe when it means the same file, below the directory that
it is unpacked into, to every program and on every operating system that a caller or a model may use.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from archives.errors import ArchiveError, quoted
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


def check_names_together(names: Iterable[bytes]) -> None:
    """Raise ``ArchiveError`` where two of the checked ``names`` cannot both be unpacked, on any system.

    Sorted by what a system without upper and lower case sees, and with the slash below every other character,
    any two names that collide bring two neighbours that do: so one pass over the pairs finds them all.
    """
    previous_key = previous_name = b""
    for key, name in _sorted_by_key(names):
        if previous_name:
            _check_pair(previous_key, previous_name, key, name)
        previous_key, previous_name = key, name


def _sorted_by_key(names: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return iter(sorted((_folded(name), name) for name in names))


def _folded(name: bytes) -> bytes:
    path = name.removesuffix(b"/")
    if path.isascii():
        return path.lower().replace(b"/", b"\0")
    text = unicodedata.normalize("NFC", path.decode("utf-8")).casefold()
    return text.encode("utf-8").replace(b"/", b"\0")


def _check_pair(first_key: bytes, first: bytes, second_key: bytes, second: bytes) -> None:
    if first_key == second_key:
        if first == second:
            raise ArchiveError(f"The zip file holds the entry {quoted(first)} twice.")
        if first.removesuffix(b"/") == second.removesuffix(b"/"):
            raise _file_and_directory(first)
    elif second_key.startswith(first_key + b"\0") and not first.endswith(b"/"):
        raise _file_and_directory(first)
    parts = zip(
        first_key.split(b"\0"), second_key.split(b"\0"), first.split(b"/"), second.split(b"/"), strict=False
    )
    for first_part_key, second_part_key, first_part, second_part in parts:
        if first_part_key != second_part_key:
            return
        if first_part != second_part:
            raise ArchiveError(
                f"The names of the entries {quoted(first)} and {quoted(second)}"
                " differ only in upper and lower case."
            )


def _file_and_directory(name: bytes) -> ArchiveError:
    return ArchiveError(
        f"The zip file holds {quoted(name.removesuffix(b'/'))} both as a file and as a directory."
    )
