"""What holds for every tree and for every damage, found by trying many."""

from __future__ import annotations

import contextlib
import tempfile
import unicodedata
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from archives.errors import ArchiveError
from archives.limits import OutputLimits, ZipLimits
from archives.packing import pack_directory
from archives.unpacking import unpack

LIMITS = OutputLimits(max_bytes=10**8, max_files=10**4)


def _is_the_same_everywhere(name: str) -> bool:
    # Names that only a system like Linux tells apart are the one thing that is packed and not unpacked.
    return name not in {".", ".."} and unicodedata.normalize("NFC", name).casefold() == name


names = st.text(
    st.characters(blacklist_categories=("Cc", "Cs"), blacklist_characters="/\\:\0"), min_size=1, max_size=20
).filter(_is_the_same_everywhere)
contents = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 3_000_000).map(bytes),
    st.binary(min_size=1).map(lambda b: b * 2000),
)
trees = st.recursive(contents, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


def write(tree: object, path: Path) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
    elif isinstance(tree, dict):
        path.mkdir(exist_ok=True)
        for name, inner in tree.items():
            write(inner, path / name)


def read(path: Path) -> object:
    return {p.name: read(p) for p in path.iterdir()} if path.is_dir() else path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, trees, max_size=4))
def test_what_is_packed_unpacks_to_the_same(tree: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        # given
        source, destination = Path(directory, "source"), Path(directory, "destination")
        write(tree, source)
        destination.mkdir()
        # when
        zipped = Path(directory, "out.zip")
        zipped.write_bytes(b"".join(pack_directory(source, LIMITS, allow_empty=True)))
        unpack(zipped, destination, ZipLimits())
        # then
        assert read(destination) == tree
        assert zipfile.ZipFile(zipped).testzip() is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_raises_nothing_but_archive_error(data: st.DataObject) -> None:
    # given
    zipped = bytearray(_sample())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(zipped) - 1))
        zipped[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as directory:
        path, destination = Path(directory, "in.zip"), Path(directory, "destination")
        path.write_bytes(zipped)
        destination.mkdir()
        # when
        with contextlib.suppress(ArchiveError):
            unpack(path, destination, ZipLimits())
        # then
        assert {p.name for p in Path(directory).iterdir()} == {"in.zip", "destination"}


def _sample() -> bytes:
    if not _SAMPLE:
        with tempfile.TemporaryDirectory() as directory:
            write({"a": {"b": b"text " * 50, "c": b"\x00\xff\x93" * 3}, "d": {}, "e": b""}, Path(directory))
            _SAMPLE.append(b"".join(pack_directory(Path(directory), LIMITS)))
    return _SAMPLE[0]


_SAMPLE: list[bytes] = []
