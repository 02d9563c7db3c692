"""What a running model is stopped for."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.attempt.verdict import Stop
from consumer.attempt.watch import Watched, rest_after, time_or_disk, too_much
from tests.unit.consumer.consumer_leases import lease


def watched(
    directory: Path, *, keep_bytes: int = 0, seconds: float = 60.0, layer: Path | None = None
) -> Watched:
    return Watched(
        output=directory,
        progress_directory=directory,
        progress_file="progress",
        layer=layer,
        layer_bytes=1000,
        limits=lease().limits,
        minimum_free_bytes=keep_bytes,
        deadline=time.monotonic() + seconds,
    )


def test_time_and_disk_are_looked_at_without_counting(tmp_path: Path) -> None:
    assert time_or_disk(watched(tmp_path)) is None
    late = time_or_disk(watched(tmp_path, seconds=-1))
    assert late is not None
    assert late.stop is Stop.TIMED_OUT
    full = time_or_disk(watched(tmp_path, keep_bytes=2**60))
    assert full is not None
    assert full.stop is Stop.NODE_FULL
    assert "node" in full.detail


def test_the_engines_disk_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a writable layer on a disk of its own that is full
    layer = tmp_path / "layer"
    monkeypatch.setattr(
        "consumer.attempt.watch.disk_shortage", lambda path, _keep: "It is full" if path == layer else None
    )
    # Then the model is stopped for it
    assert time_or_disk(watched(tmp_path)) is None
    assert time_or_disk(watched(tmp_path, layer=layer)) is not None


@pytest.mark.parametrize(("written", "stopped"), [(1000, False), (1001, True)])
def test_the_engine_is_asked_for_a_layer_that_cannot_be_seen(
    tmp_path: Path, written: int, *, stopped: bool
) -> None:
    asked = replace(watched(tmp_path), ask_layer=lambda: written)
    found = too_much(asked)
    assert (found is not None) == stopped
    if found is not None:
        assert found.stop is Stop.OUTPUT_TOO_LARGE
        assert "outside its output" in found.detail


def test_counting_takes_a_tenth_of_the_time_but_never_pauses_for_long() -> None:
    assert rest_after(0.01) == 0.0
    assert rest_after(0.5) == 5.0
    assert rest_after(60.0) == 30.0
