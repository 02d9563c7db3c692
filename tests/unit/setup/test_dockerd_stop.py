"""`make engine-down` stops what was started here, and nothing else."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from setup.engine import dockerd
from setup.host.machine import Machine
from setup.host.processes import start_time
from setup.places import Places


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


class Systemctl:
    """Stands where systemctl would; keeps what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pid: int, started: int = 0) -> None:
        self._pid, self._started, self.told = pid, started, list[tuple[str, ...]]()
        monkeypatch.setattr(dockerd, "_unit_pid", lambda: self._pid)
        monkeypatch.setattr(dockerd, "_systemctl", self._hear)

    def _hear(self, *words: str) -> None:
        self.told.append(words)
        self._pid = self._pid or self._started


SYSTEMD = Machine("Linux", "debian", "bookworm", is_root=True, has_apt=True, has_systemd=True)
STOPPED = [("stop", "docker.socket", "docker.service")]


def test_the_unit_that_was_started_here_is_stopped(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an engine that systemd started for us
    places = Places(tmp_path, tmp_path)
    systemctl = Systemctl(monkeypatch, 0, started=stand_in.pid)
    dockerd.start(places, SYSTEMD, lambda _host: True)
    # When the engine is to stop, then it is.
    assert dockerd.stop(places)
    assert systemctl.told == [("start", "docker"), *STOPPED]


@pytest.mark.parametrize("started", ["", "another boot:1"])
def test_a_unit_that_somebody_else_started_since_is_left_alone(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, started: str
) -> None:
    # Given a record of an earlier boot, and an engine that the machine started since
    places = Places(tmp_path, tmp_path)
    record = {"how": "systemd", "pid": stand_in.pid, "start_time": started}
    places.engine_record.write_text(json.dumps(record))
    systemctl = Systemctl(monkeypatch, stand_in.pid)
    # When the engine is to stop, then systemd is told nothing.
    assert not dockerd.stop(places)
    assert systemctl.told == []


def test_a_unit_that_ran_already_never_becomes_ours(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(tmp_path, tmp_path)
    Systemctl(monkeypatch, stand_in.pid)
    dockerd.start(places, SYSTEMD, lambda _host: True)
    assert dockerd.recall(places) is None


def test_an_interrupted_start_of_the_unit_leaves_neither_engine_nor_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a Ctrl-C while the engine is waited for
    places = Places(tmp_path, tmp_path)
    systemctl = Systemctl(monkeypatch, 0)

    def interrupted(_host: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dockerd.start(places, SYSTEMD, interrupted)
    assert systemctl.told == [("start", "docker"), *STOPPED]
    assert dockerd.recall(places) is None


def test_an_interrupt_between_start_and_record_stops_what_was_started(
    tmp_path: Path, stand_in: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a Ctrl-C that comes right after the process was started, before it could be remembered
    places = Places(tmp_path, tmp_path)

    def spawn(_log: Path) -> subprocess.Popen[bytes]:
        signal.raise_signal(signal.SIGINT)
        return stand_in

    monkeypatch.setattr(dockerd, "_spawn", spawn)
    # When the engine is started, then the interrupt is heard, and nothing is left running.
    with pytest.raises(KeyboardInterrupt):
        dockerd.start(places, replace(SYSTEMD, has_systemd=False), lambda _host: True)
    assert start_time(stand_in.pid) is None
    assert dockerd.recall(places) is None


def test_without_a_record_nothing_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not dockerd.stop(Places(tmp_path, tmp_path))
    assert "No container engine was started from here" in capsys.readouterr().out
