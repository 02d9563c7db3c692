"""Measuring what a model wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from consumer.node.usage import disk_shortage, excess, measure
from consumer.node.workspace import remove_tree

LARGE = 10**15


def test_a_sparse_file_counts_in_full(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**12)
    usage = measure(tmp_path, 10**9, 10)
    assert excess(usage, 10**9, 10, "The output") is not None


def test_counting_ends_once_a_limit_is_passed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert measure(tmp_path, LARGE, 10).files == 11


def test_links_are_counted_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to("/")
    assert measure(tmp_path, LARGE, 1000).files == 2


def test_a_tree_too_deep_for_paths_is_noticed_and_can_be_removed(tmp_path: Path) -> None:
    # Given directories nested deeper than a path may be long
    root = tmp_path / "root"
    root.mkdir()
    here = Path.cwd()
    os.chdir(root)
    try:
        for _ in range(3000):
            Path("dd").mkdir()
            os.chdir("dd")
    finally:
        os.chdir(here)
    # Then it is too much, and can be removed nevertheless
    assert excess(measure(root, LARGE, 10**6), LARGE, 10**6, "The output") is not None
    remove_tree(root)
    assert not root.exists()


def test_a_vanished_directory_is_empty(tmp_path: Path) -> None:
    assert measure(tmp_path / "gone", 1, 1).files == 0


def test_a_link_in_the_middle_of_the_way_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tree of which a directory becomes a link elsewhere once it has been counted
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "a" / "b").mkdir(parents=True)
    (elsewhere / "b").mkdir(parents=True)
    for number in range(50):
        (elsewhere / "b" / str(number)).touch()
    real_scandir = os.scandir
    scans = 0

    def scandir(descriptor: int) -> Any:
        nonlocal scans
        scans += 1
        if scans == 3:
            raise AssertionError("what the link leads to was counted")
        listed = real_scandir(descriptor)
        if scans == 2:
            (root / "a").rename(tmp_path / "moved")
            (root / "a").symlink_to(elsewhere)
        return listed

    monkeypatch.setattr("consumer.node.usage.os.scandir", scandir)
    # When it is counted, then only what lies in it counts
    assert measure(root, LARGE, 1000).files == 2


def test_a_directory_that_may_not_be_read_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a directory that shuts out a worker that is not root
    (tmp_path / "shut").mkdir()
    real_open = os.open

    def refusing(path: Any, flags: int, **options: Any) -> int:
        if path == "shut":
            raise PermissionError(13, "Permission denied")
        return real_open(path, flags, **options)

    monkeypatch.setattr("consumer.node.usage.os.open", refusing)
    # Then what nobody can count is refused
    sentence = excess(measure(tmp_path, LARGE, 100), LARGE, 100, "The output")
    assert sentence is not None
    assert "permissions" in sentence


def test_counting_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    measure(tmp_path, LARGE, 100)
    measure(tmp_path, LARGE, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def statvfs(*, free_bytes: int, files: int, free_files: int) -> os.statvfs_result:
    return os.statvfs_result((1, 1, 10**12, free_bytes, free_bytes, files, free_files, free_files, 0, 255))


@pytest.mark.parametrize(
    ("status", "short"),
    [
        (statvfs(free_bytes=1000, files=10**6, free_files=10**6), False),
        (statvfs(free_bytes=999, files=10**6, free_files=10**6), True),
        (statvfs(free_bytes=1000, files=10**6, free_files=10_099), True),
        # btrfs counts no files, and a small file system never had many.
        (statvfs(free_bytes=1000, files=0, free_files=0), False),
        (statvfs(free_bytes=1000, files=20_000, free_files=5_000), False),
    ],
)
def test_a_disk_is_short_of_bytes_or_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: os.statvfs_result, short: bool
) -> None:
    monkeypatch.setattr("consumer.node.usage.os.statvfs", lambda _path: status)
    assert (disk_shortage(tmp_path, 900, more_bytes=100, more_files=100) is not None) == short
