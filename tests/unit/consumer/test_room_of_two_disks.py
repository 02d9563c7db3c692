"""A node whose engine keeps its images on a disk of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.bootstrap import build_room
from consumer.node.room import Disk
from tests.unit.consumer.attempt_bench import Bench


def test_a_full_disk_of_the_engine_costs_no_content_on_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a content on our disk, which has room, and the engine's disk, which has none
    elsewhere = tmp_path / "engine"
    elsewhere.mkdir()
    content = tmp_path / "contents" / ("a" * 64)
    content.mkdir(parents=True)
    bench = Bench(tmp_path)
    room = build_room(bench.station.settings, bench.engine)
    ours = tmp_path.stat().st_dev
    room.__dict__["disks"] = [Disk(place=tmp_path, device=ours), Disk(place=elsewhere, device=ours + 1)]

    def shortage(place: Path, _keep_bytes: int) -> str | None:
        return "The node is full" if place == elsewhere else None

    monkeypatch.setattr("consumer.node.room.disk_shortage", shortage)
    # When the slot wants to know whether it may take a task
    assert not room.suffices()
    # Then the content has not gone: that would bring the engine no room
    assert content.is_dir()
