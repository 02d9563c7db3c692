"""Who may write to the bytes of a download, and what is left of them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from inference_server_client.part_file import PartFile

SHA256 = "0123456789abcdef" * 4


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_two_downloads_to_one_target_never_share_a_file(tmp_path: Path):
    # given a download that runs
    target = tmp_path / "out.zip"
    with PartFile(target, SHA256) as first:
        first.stream.write(b"first")
        # when a second one to the same target starts, writes and ends
        with PartFile(target, SHA256) as second:
            second.stream.write(b"second")
            second.keep()
        # then it kept its own bytes, and so does the first, which ends later.
        assert target.read_bytes() == b"second"
        first.keep()
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["out.zip"]


def test_what_a_failed_download_left_is_found_again(tmp_path: Path):
    with PartFile(tmp_path / "out.zip", SHA256) as failed:
        failed.stream.write(b"half")
    assert names(tmp_path) == [".out.zip.0123456789abcdef.part"]
    with PartFile(tmp_path / "out.zip", SHA256) as again:
        assert again.stream.read() == b"half"


def test_the_second_of_two_leaves_nothing_when_it_fails(tmp_path: Path):
    with PartFile(tmp_path / "out.zip", SHA256) as first, PartFile(tmp_path / "out.zip", SHA256) as second:
        second.stream.write(b"half")
        first.discard()
    assert names(tmp_path) == []


def test_a_file_that_was_moved_before_it_could_be_locked_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a download that ends between another one's opening and locking of the same file
    target = tmp_path / "out.zip"
    first = PartFile(target, SHA256)
    first.stream.write(b"whole")
    lock = fcntl.flock

    def lock_late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        first.keep()
        first.stream.close()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    # when the other one starts, then it begins anew and the first one's target stays whole.
    with PartFile(target, SHA256) as second:
        second.stream.write(b"x")
        assert target.read_bytes() == b"whole"
