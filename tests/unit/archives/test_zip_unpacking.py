"""``archives.unpacking``: what arrives on the disk, and what never does."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from archives.errors import ArchiveError, UnpackingAbandonedError
from archives.limits import ZipLimits
from archives.unpacking import unpack
from tests.bad_zips import BAD_WHEN_UNPACKED, BAD_ZIPS, RawEntry, raw_zip

LIMITS = ZipLimits()


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    path = tmp_path / "destination"
    path.mkdir()
    return path


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def tree_of(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def test_files_and_directories_arrive(tmp_path: Path, destination: Path) -> None:
    # given
    archive_path = tmp_path / "in.zip"
    with zipfile.ZipFile(archive_path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("empty")
        archive.writestr("a/b/big.txt", b"many words " * 300_000)
        archive.writestr("a/c.txt", b"c")
        archive.writestr("d.bin", os.urandom(3_000_000), zipfile.ZIP_STORED)
        expected = {name: archive.read(name) for name in ("a/b/big.txt", "a/c.txt", "d.bin")}
    # when
    facts = unpack(archive_path, destination, LIMITS)
    # then
    tree = tree_of(destination)
    assert tree == {**expected, "a": None, "a/b": None, "empty": None}
    assert facts.entries == 4
    assert facts.unpacked_bytes == sum(map(len, expected.values()))


def test_modes_are_ours_except_for_what_may_be_executed(tmp_path: Path, destination: Path) -> None:
    # given
    (tmp_path / "in.zip").write_bytes(
        raw_zip([RawEntry(b"d/run.sh", mode=0o104755), RawEntry(b"d/secret", mode=0o100600)])
    )
    # when
    umask = os.umask(0o077)
    try:
        unpack(tmp_path / "in.zip", destination, LIMITS, file_mode=0o444, directory_mode=0o555)
    finally:
        os.umask(umask)
    # then
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in destination.rglob("*")}
    assert modes == {"d": 0o555, "run.sh": 0o555, "secret": 0o444}


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_nothing_of_a_bad_zip_is_written(name: str, tmp_path: Path, destination: Path) -> None:
    # given
    (tmp_path / "in.zip").write_bytes(BAD_ZIPS[name][0]())
    # when
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "in.zip", destination, LIMITS)
    # then
    assert tree_of(tmp_path).keys() == {"in.zip", "destination"}


@pytest.mark.parametrize("name", BAD_WHEN_UNPACKED)
def test_lie_that_shows_late_stops_unpacking(name: str, tmp_path: Path, destination: Path) -> None:
    # given
    build, words = BAD_WHEN_UNPACKED[name]
    (tmp_path / "in.zip").write_bytes(build())
    # when
    with pytest.raises(ArchiveError, match=f'"a".*{words}|{words}.*"a"'):
        unpack(tmp_path / "in.zip", destination, LIMITS)
    # then
    written = destination / "a"
    assert not written.exists() or written.stat().st_size <= 9500


def test_link_that_lies_in_the_way_is_not_followed(tmp_path: Path, destination: Path) -> None:
    # given a destination that is not as clean as it should be
    outside = tmp_path / "outside"
    outside.mkdir()
    (destination / "d").symlink_to(outside)
    (tmp_path / "in.zip").write_bytes(raw_zip([RawEntry(b"d/a.txt")]))
    # when
    with pytest.raises(OSError, match="d"):
        unpack(tmp_path / "in.zip", destination, LIMITS)
    # then
    assert not list(outside.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_unpacking_stops_between_pieces_when_it_is_abandoned(
    method: int, tmp_path: Path, destination: Path
) -> None:
    # given a file of many pieces, and a caller who loses interest after the third question
    with zipfile.ZipFile(tmp_path / "in.zip", "w", method) as archive:
        archive.writestr("large", bytes(20 * 1024**2))
    answers = iter([False, False, False])
    # when
    with pytest.raises(UnpackingAbandonedError, match="no longer wanted"):
        unpack(tmp_path / "in.zip", destination, LIMITS, abandoned=lambda: next(answers, True))
    # then
    assert (destination / "large").stat().st_size <= 3 * 1024**2


def test_unpacking_stops_between_entries_when_it_is_abandoned(tmp_path: Path, destination: Path) -> None:
    # given
    (tmp_path / "in.zip").write_bytes(raw_zip([RawEntry(b"a/", data=b""), RawEntry(b"b/", data=b"")]))
    answers = iter([False])
    # when
    with pytest.raises(UnpackingAbandonedError):
        unpack(tmp_path / "in.zip", destination, LIMITS, abandoned=lambda: next(answers, True))
    # then
    assert tree_of(destination) == {"a": None}


def test_names_in_code_page_437_arrive(tmp_path: Path, destination: Path) -> None:
    # given
    (tmp_path / "in.zip").write_bytes(raw_zip([RawEntry("größe".encode("cp437"))]))
    # when
    unpack(tmp_path / "in.zip", destination, LIMITS)
    # then
    assert tree_of(destination) == {"größe": b"data"}


def test_no_descriptor_stays_open(tmp_path: Path, destination: Path) -> None:
    # given
    (tmp_path / "in.zip").write_bytes(raw_zip([RawEntry(b"a/b/c/d.txt"), RawEntry(b"a/x", crc32=1)]))
    before = open_descriptors()
    # when
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "in.zip", destination, LIMITS)
    # then
    assert open_descriptors() == before
