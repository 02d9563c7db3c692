"""Measuring what a model wrote."""

from __future__ import annotations

import os
from pathlib import Path

from consumer.node.usage import excess, measure
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
