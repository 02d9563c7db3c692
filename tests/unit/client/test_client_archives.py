"""Packing what is sent, and unpacking what comes, whatever a directory or a zip may hold against us."""

from __future__ import annotations

import errno
import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from inference_server_client import InputError, UnpackError
from inference_server_client.packing import plan_package, ready_zip, write_package
from inference_server_client.unpacking import unpack
from inference_server_client.upload_body import MultipartBody, UploadBody


def packed(*paths: Path, leave_out: Path | None = None) -> zipfile.ZipFile:
    buffer = io.BytesIO()
    write_package(plan_package(paths, leave_out=leave_out), buffer)
    return zipfile.ZipFile(buffer)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "b" / "empty").mkdir(parents=True)
    (top / "b" / "2.txt").write_text("two" * 1000)
    (top / "a.png").write_bytes(b"png" * 100)
    (top / "run.sh").write_text("#!/bin/sh")
    (top / "run.sh").chmod(0o755)
    return top


def test_a_directory_is_sent_as_its_contents_in_order(tree: Path):
    archive = packed(tree)
    assert archive.namelist() == ["a.png", "b/2.txt", "b/empty/", "run.sh"]
    assert archive.read("b/2.txt") == b"two" * 1000
    assert archive.getinfo("a.png").compress_type == zipfile.ZIP_STORED
    assert archive.getinfo("b/2.txt").compress_size < 1000
    assert archive.getinfo("run.sh").external_attr >> 16 == stat.S_IFREG | 0o755


def test_the_same_files_make_the_same_bytes(tree: Path):
    first, second = io.BytesIO(), io.BytesIO()
    write_package(plan_package([tree]), first)
    os.utime(tree / "a.png", (1, 1))
    write_package(plan_package([tree]), second)
    assert first.getvalue() == second.getvalue()


def test_several_paths_keep_their_names(tree: Path):
    assert packed(tree / "b", tree / "a.png").namelist() == ["a.png", "b/2.txt", "b/empty/"]


def test_two_paths_of_one_name_are_refused(tree: Path, tmp_path: Path):
    other = tmp_path / "a.png"
    other.write_bytes(b"other")
    with pytest.raises(InputError, match=r"a\.png"):
        plan_package([tree / "a.png", other])


def test_links_pipes_odd_names_and_the_results_are_left_out_and_said(tree: Path):
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "dirlink").symlink_to("/etc")
    os.mkfifo(tree / "pipe")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff")).write_text("x")
    (tree / "results").mkdir()
    (tree / "results" / "old.csv").write_text("old")
    plan = plan_package([tree], leave_out=tree / "results")
    assert [entry.name for entry in plan.entries] == ["a.png", "b/2.txt", "b/empty/", "run.sh"]
    assert sorted((skipped.path.name, skipped.why) for skipped in plan.skipped) == [
        ("dirlink", "a link"), ("link", "a link"), ("pipe", "neither a file nor a directory"),
        ("results", "the directory for the results"), ("\udcff", "its name is not UTF-8"),
    ]  # fmt: skip


def test_a_link_as_the_path_is_refused_with_its_target(tree: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(InputError, match=str(tree)):
        plan_package([tmp_path / "link"])


def test_a_file_replaced_by_a_link_after_the_plan_is_not_followed(tree: Path):
    plan = plan_package([tree])
    (tree / "a.png").unlink()
    (tree / "a.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"a\.png"):
        write_package(plan, io.BytesIO())


def test_nothing_to_send_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(InputError):
            plan_package([path])


def test_directories_deeper_than_python_likes_to_call_go_in_and_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given 1200 levels, made and removed one by one, because the libraries' own ways call themselves as deep
    monkeypatch.chdir(tmp_path)
    levels = ["/".join(["d"] * depth) for depth in range(1, 1201)]
    for level in ["", *levels]:
        Path("in", level).mkdir()
    Path("in", levels[-1], "x").write_text("x")
    try:
        # when
        with Path("r.zip").open("wb") as stream:
            write_package(plan_package([Path("in")]), stream)
        unpack(Path("r.zip"), Path("out"))
        # then
        assert Path("out", levels[-1], "x").read_text() == "x"
    finally:
        for top in ("in", "out"):
            Path(top, levels[-1], "x").unlink(missing_ok=True)
            for level in reversed(levels):
                if Path(top, level).exists():
                    Path(top, level).rmdir()


def test_a_ready_zip_is_known_and_a_broken_one_refused(tmp_path: Path):
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    with zipfile.ZipFile(good, "w") as archive:
        archive.writestr("a", "b")
    bad.write_text("not a zip")
    assert ready_zip([good]) == good
    assert ready_zip([good, good]) is None
    assert ready_zip([tmp_path]) is None
    with pytest.raises(InputError):
        ready_zip([bad])


def archive_of(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data, mode in entries:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return path


PLAIN = stat.S_IFREG | 0o644


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_results_are_unpacked_with_their_directories(tmp_path: Path):
    source = archive_of(
        tmp_path / "r.zip", ("a.txt", b"A", PLAIN), ("d/b.txt", b"B", 0), ("e/", b"", stat.S_IFDIR | 0o755)
    )
    files = unpack(source, tmp_path / "out")
    assert everything(tmp_path / "out") == ["a.txt", "d", "d/b.txt", "e"]
    assert files == [tmp_path / "out" / "a.txt", tmp_path / "out" / "d" / "b.txt"]


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", "a//x", "./x", "a\\..\\x", "a/./b", "..", "x\0y", "a/..", "//x", ""]
)
def test_names_that_lead_elsewhere_are_refused_before_anything_is_written(tmp_path: Path, name: str):
    source = archive_of(tmp_path / "r.zip", ("first.txt", b"1", PLAIN), (name, b"evil", PLAIN))
    with pytest.raises(UnpackError):
        unpack(source, tmp_path / "inner" / "out")
    assert everything(tmp_path) == ["r.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int):
    source = archive_of(tmp_path / "r.zip", ("x", b"/etc/passwd", kind | 0o777))
    with pytest.raises(UnpackError, match="link or a device"):
        unpack(source, tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("d/x", "d/x/y/z")])
def test_entries_that_collide_are_refused(
    tmp_path: Path, names: tuple[str, ...], recwarn: pytest.WarningsRecorder
):
    source = archive_of(tmp_path / "r.zip", *((name, b"1", PLAIN) for name in names))
    with pytest.raises(UnpackError):
        unpack(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path):
    source = archive_of(tmp_path / "r.zip", ("a", os.urandom(4000), PLAIN))
    with zipfile.ZipFile(source, "a") as archive:
        twin = zipfile.ZipInfo("b")
        original = archive.getinfo("a")
        for field in ("CRC", "compress_size", "file_size", "header_offset", "external_attr"):
            setattr(twin, field, getattr(original, field))
        archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UnpackError, match="overlap"):
        unpack(source, tmp_path / "out")


def test_existing_files_are_kept_unless_told_otherwise(tmp_path: Path):
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d" / "b").write_text("mine")
    source = archive_of(tmp_path / "r.zip", ("a", b"new", PLAIN), ("d/b", b"new", PLAIN))
    with pytest.raises(UnpackError, match="d/b"):
        unpack(source, out)
    assert everything(out) == ["d", "d/b"]
    assert (out / "d" / "b").read_text() == "mine"
    unpack(source, out, overwrite=True)
    assert (out / "d" / "b").read_text() == "new"


def test_links_that_lie_there_are_never_written_through(tmp_path: Path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (out / "file").symlink_to(outside / "precious")
    (out / "dir").symlink_to(outside)
    unpack(archive_of(tmp_path / "1.zip", ("file", b"new", PLAIN)), out, overwrite=True)
    assert (outside / "precious").read_text() == "mine"
    assert (out / "file").read_text() == "new"
    with pytest.raises(UnpackError, match="in the way"):
        unpack(archive_of(tmp_path / "2.zip", ("dir/precious", b"new", PLAIN)), out, overwrite=True)
    assert (outside / "precious").read_text() == "mine"


def test_a_damaged_zip_is_refused_and_leaves_no_half_file(tmp_path: Path):
    (tmp_path / "r.zip").write_bytes(b"PK\x05\x06 not really")
    with pytest.raises(UnpackError):
        unpack(tmp_path / "r.zip", tmp_path / "out")
    source = archive_of(tmp_path / "s.zip", ("a", b"A" * 5000, PLAIN))
    data = bytearray(source.read_bytes())
    data[100] ^= 1
    source.write_bytes(bytes(data))
    with pytest.raises(UnpackError):
        unpack(source, tmp_path / "out")
    assert everything(tmp_path / "out") == []


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_compressed_data_is_an_unpack_error(tmp_path: Path, method: int):
    # given a zip, each of whose bytes is damaged in turn
    source = tmp_path / "r.zip"
    with zipfile.ZipFile(source, "w", method) as archive:
        archive.writestr("ä", "damage me" * 20)
    whole = source.read_bytes()
    refused = 0
    for place in range(len(whole)):
        source.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        # when it is unpacked, then nothing but our own error is raised.
        try:
            unpack(source, tmp_path / "out", overwrite=True)
        except UnpackError:
            refused += 1
    assert refused > 50


def test_a_disk_that_fails_is_not_taken_for_a_damaged_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = archive_of(tmp_path / "r.zip", ("a", b"A", PLAIN))

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        unpack(source, tmp_path / "out")


def test_a_file_that_shrinks_while_it_is_sent_is_noticed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 200_000)
    with path.open("rb") as stream:
        body = UploadBody(stream)
        path.write_bytes(b"x" * 100)
        with pytest.raises(InputError, match="shorter"):
            list(body)


def test_a_body_can_be_sent_again_from_where_it_began():
    stream = io.BytesIO(b"skipped" + b"x" * 100_000)
    stream.seek(7)
    told: list[int] = []
    body = UploadBody(stream, on_progress=told.append)
    assert b"".join(body) == b"".join(body) == b"x" * 100_000
    assert (body.total_bytes, body.complete) == (100_000, True)
    assert told == [0, 65536, 100_000] * 2


def test_a_form_has_the_length_it_says():
    body = MultipartBody({"description": "Ziffern ✓"}, io.BytesIO(b"zip"))
    sent = b"".join(body)
    assert len(sent) == body.total_bytes
    assert b'name="description"\r\n\r\n' + "Ziffern ✓".encode() + b"\r\n--" in sent
    assert b"\r\n\r\nzip\r\n--" in sent
