"""Who a node is, and whether it takes tasks: two small files in the consumer's directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.node.instance import instance_of
from consumer.node.intake import Closed, Intake


def test_a_restart_is_the_same_instance_and_another_directory_another(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert instance_of(one) == instance_of(one)
    assert instance_of(one) != instance_of(other)


@pytest.mark.parametrize("kept", ["", "half of an i", "\xff\xfe"])
def test_what_a_power_cut_left_is_made_anew_and_kept(tmp_path: Path, kept: str) -> None:
    (tmp_path / "instance").write_bytes(kept.encode("latin-1"))
    assert len(instance_of(tmp_path)) == 32
    assert instance_of(tmp_path) == instance_of(tmp_path)


@pytest.mark.parametrize("reason", list(Closed))
def test_a_closed_node_stays_closed_over_a_restart(tmp_path: Path, reason: Closed) -> None:
    assert Intake(tmp_path).closed() is None
    Intake(tmp_path).close(reason)
    assert Intake(tmp_path).closed() is reason
    Intake(tmp_path).open()
    assert Intake(tmp_path).closed() is None
    # Opening an open one is fine.
    Intake(tmp_path).open()


def test_a_word_that_nobody_knows_closes_nothing(tmp_path: Path) -> None:
    (tmp_path / "closed").write_text("because of a later release")
    assert Intake(tmp_path).closed() is None
