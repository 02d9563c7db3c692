"""``archives.packing``: what becomes of a directory that an untrusted program wrote."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archives.errors import EmptyOutputError, OutputInvalidError, OutputTooLargeError
from archives.inspection import inspect_zip
from archives.limits import OutputLimits, ZipLimits
from archives.packing import pack_directory

LIMITS = OutputLimits(max_bytes=100_000_000, max_files=10_000)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "output"
    path.mkdir()
    yield path
    # Pytest's own removal calls itself once per level.
    subprocess.run(["rm", "-rf", "--", path], check=True)


def pack(root: Path, limits: OutputLimits = LIMITS) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pack_directory(root, limits))))
    assert archive.testzip() is None
    return archive


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def make_deep(root: Path, levels: int) -> None:
    directory = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=directory)
        deeper = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = deeper
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)


def test_files_directories_and_times_are_kept(root: Path) -> None:
    # given
    (root / "empty").mkdir()
    (root / "a").mkdir()
    (root / "a/ü.txt").write_bytes(b"text " * 1000)
    os.utime(root / "a/ü.txt", (1_700_000_000, 1_700_000_000))
    (root / "run").write_bytes(b"")
    (root / "run").chmod(0o4700)
    # when
    archive = pack(root)
    # then
    assert archive.namelist() == ["a/", "a/ü.txt", "empty/", "run"]
    assert archive.getinfo("a/ü.txt").date_time == (2023, 11, 14, 22, 13, 20)
    assert archive.read("a/ü.txt") == b"text " * 1000
    modes = {i.filename: i.external_attr >> 16 for i in archive.infolist()}
    assert modes["run"] == stat.S_IFREG | 0o744
    assert modes["empty/"] == stat.S_IFDIR | 0o755


def test_compression_is_chosen_per_file(root: Path) -> None:
    # given
    (root / "large.csv").write_bytes(b"1,2,3\n" * 500_000)
    (root / "large.npz").write_bytes(os.urandom(3_000_000))
    (root / "small.csv").write_bytes(b"1,2,3\n" * 100)
    (root / "small.png").write_bytes(os.urandom(100))
    # when
    archive = pack(root)
    # then
    methods = {i.filename: i.compress_type for i in archive.infolist()}
    assert methods == {"large.csv": 8, "large.npz": 0, "small.csv": 8, "small.png": 0}
    assert archive.read("large.csv") == b"1,2,3\n" * 500_000
    assert archive.read("large.npz") == (root / "large.npz").read_bytes()
    # Sizes stand before the data of small files, for readers that stream.
    assert {i.filename: i.flag_bits & 8 for i in archive.infolist() if "small" in i.filename} == {
        "small.csv": 0,
        "small.png": 0,
    }


def test_same_tree_gives_the_same_bytes(root: Path) -> None:
    # given
    for name in "zebra", "apple", "mango":
        (root / name).write_text(name)
    # when / then
    assert b"".join(pack_directory(root, LIMITS)) == b"".join(pack_directory(root, LIMITS))


def test_links_and_special_files_are_left_out_and_noted(root: Path, tmp_path: Path) -> None:
    # given
    (tmp_path / "secret").write_text("secret")
    (root / "file").write_text("file")
    (root / "escape").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(".")
    os.mkfifo(root / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    # when
    packing = pack_directory(root, LIMITS)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(packing)))
    listener.close()
    # then
    assert archive.namelist() == ["file"]
    assert packing.notes == [
        '"escape" is a link and was left out of the output.',
        '"loop" is a link and was left out of the output.',
        '"pipe" is a named pipe and was left out of the output.',
        '"socket" is a socket and was left out of the output.',
    ]


def test_notes_are_bounded(root: Path) -> None:
    # given
    for number in range(50):
        (root / f"{number:02}").symlink_to("nowhere")
    (root / "file").write_text("file")
    # when
    packing = pack_directory(root, LIMITS)
    list(packing)
    # then
    assert len(packing.notes) == 21
    assert packing.notes[-1] == "30 more notes of this kind are left out."


def test_hard_links_are_files(root: Path) -> None:
    # given
    (root / "a").write_text("same")
    (root / "b").hardlink_to(root / "a")
    # when / then
    assert {name: pack(root).read(name) for name in "ab"} == {"a": b"same", "b": b"same"}


def test_names_that_nobody_could_unpack_are_respelled(root: Path) -> None:
    # given
    directory = os.fsencode(root)
    for name in (b"bad\xff", b"back\\slash", b"line\nbreak", b"C:colon"):
        Path(os.fsdecode(directory + b"/" + name)).write_bytes(name)
    # when
    packing = pack_directory(root, LIMITS)
    zipped = b"".join(packing)
    # then
    names = zipfile.ZipFile(io.BytesIO(zipped)).namelist()
    assert names == ["C%3Acolon", "back%5Cslash", "bad%FF", "line%0Abreak"]
    assert r'"line\nbreak" is called "line%0Abreak" in the output.' in packing.notes
    inspect_zip(io.BytesIO(zipped), ZipLimits())


@pytest.mark.parametrize("names", [(b"%01", b"\x01"), (b"%FF", b"\xff"), (b"\xff%FE", b"%FF\xfe")])
def test_respelled_name_that_exists_already_is_refused(root: Path, names: tuple[bytes, bytes]) -> None:
    # given
    for name in names:
        (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).touch()
    # when / then
    with pytest.raises(OutputInvalidError, match="no zip can carry"):
        list(pack_directory(root, LIMITS))


def test_empty_output_is_an_error_unless_allowed(root: Path) -> None:
    with pytest.raises(EmptyOutputError):
        pack_directory(root, LIMITS)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pack_directory(root, LIMITS, allow_empty=True))))
    assert archive.namelist() == []


def test_output_of_only_links_is_empty_and_says_why(root: Path) -> None:
    # given
    (root / "result").symlink_to("/data/result")
    # when / then
    with pytest.raises(EmptyOutputError, match='except "result"'):
        pack_directory(root, LIMITS)


def test_sparse_terabyte_is_refused_before_it_is_read(root: Path) -> None:
    # given
    with (root / "sparse").open("wb") as file:
        file.truncate(10**12)
    # when / then
    started = time.monotonic()
    with pytest.raises(OutputTooLargeError, match="larger than 100,000,000 bytes"):
        pack_directory(root, LIMITS)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("per_directory", [1, 200])
def test_too_many_files_are_refused(root: Path, per_directory: int) -> None:
    # given
    for number in range(200):
        directory = root / str(number // per_directory)
        directory.mkdir(exist_ok=True)
        (directory / str(number)).touch()
    # when / then
    with pytest.raises(OutputTooLargeError, match="more than 100 files"):
        pack_directory(root, OutputLimits(max_bytes=10, max_files=100))


def test_thousand_levels_are_packed_with_one_open_directory(root: Path) -> None:
    # given
    make_deep(root, 1000)
    # when
    packing = pack_directory(root, LIMITS)
    descriptors = {open_descriptors() for _ in packing}
    # then
    assert max(descriptors) - open_descriptors() <= 2
    assert len(pack(root).namelist()) == 1001


def test_tree_too_deep_to_be_unpacked_is_refused(root: Path) -> None:
    # given
    make_deep(root, 2_100)
    # when / then
    with pytest.raises(OutputInvalidError, match="too deep"):
        pack_directory(root, LIMITS)


def test_growing_file_is_read_as_long_as_it_was(root: Path) -> None:
    # given
    (root / "log").write_bytes(os.urandom(3_000_000))
    packing = pack_directory(root, LIMITS)
    # when it grows while it is read
    chunks = [next(packing)]
    with (root / "log").open("ab") as file:
        file.write(b"more")
    chunks.extend(packing)
    # then
    assert zipfile.ZipFile(io.BytesIO(b"".join(chunks))).getinfo("log").file_size == 3_000_000


def test_shrinking_file_is_refused(root: Path) -> None:
    # given
    (root / "log").write_bytes(os.urandom(3_000_000))
    packing = pack_directory(root, LIMITS)
    next(packing)
    # when
    os.truncate(root / "log", 10)
    # then
    with pytest.raises(OutputInvalidError, match='changed while it was read, at "log"'):
        list(packing)


def test_file_that_grew_since_the_survey_is_held_against_the_limit(root: Path) -> None:
    # given
    (root / "log").write_bytes(b"x" * 500)
    packing = pack_directory(root, OutputLimits(max_bytes=1000, max_files=10))
    # when
    os.truncate(root / "log", 2000)
    # then
    with pytest.raises(OutputTooLargeError):
        list(packing)


def test_file_replaced_by_a_link_during_the_walk_is_refused(root: Path, tmp_path: Path) -> None:
    # given
    (tmp_path / "secret").write_text("secret")
    for number in range(3):
        (root / f"{number}").write_bytes(os.urandom(2_000_000))
    packing = pack_directory(root, LIMITS)
    next(packing)
    # when what the walk has not reached yet changes
    (root / "2").unlink()
    (root / "1").unlink()
    (root / "2").symlink_to(tmp_path / "secret")
    # then
    with pytest.raises(OutputInvalidError):
        list(packing)
