"""`make engine-down` stops what was started here, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from setup import dockerd
from setup.places import Places
from setup.processes import start_time


@pytest.fixture
def stand_in() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands where dockerd would."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def _record(places: Places, pid: int, started: str) -> None:
    places.engine_record.write_text(json.dumps({"how": "process", "pid": pid, "start_time": started}))


def test_the_engine_that_was_started_here_is_stopped(
    tmp_path: Path, stand_in: subprocess.Popen[bytes]
) -> None:
    # Given a record of a process that runs
    places = Places(tmp_path, tmp_path)
    _record(places, stand_in.pid, start_time(stand_in.pid) or "")
    # When the engine is to stop, then that process has ended and is forgotten.
    assert dockerd.stop(places)
    assert start_time(stand_in.pid) is None
    assert not places.engine_record.exists()


def test_a_process_that_only_has_the_same_number_is_left_alone(
    tmp_path: Path, stand_in: subprocess.Popen[bytes]
) -> None:
    # Given a record whose number belongs to somebody else by now
    places = Places(tmp_path, tmp_path)
    _record(places, stand_in.pid, "another boot:1")
    # When the engine is to stop, then nobody is.
    assert not dockerd.stop(places)
    assert stand_in.poll() is None


def test_without_a_record_nothing_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not dockerd.stop(Places(tmp_path, tmp_path))
    assert "No container engine was started from here" in capsys.readouterr().out
