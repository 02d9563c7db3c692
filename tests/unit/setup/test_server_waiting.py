"""Which server is stopped when it is not ready, and how the engine is asked to remove leftovers."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker.errors import DockerException

from setup.console import SetupError
from setup.embedded import server
from setup.engine import engine, leftovers
from setup.places import Places


@pytest.mark.parametrize(("started_now", "stopped"), [(True, 1), (False, 0)])
def test_only_a_server_that_was_started_now_is_stopped_when_it_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started_now: bool, stopped: int
) -> None:
    # Given a server that does not become ready
    stops: list[Places] = []
    monkeypatch.setattr(server, "READY_SECONDS", 0)
    monkeypatch.setattr(server, "stop_processes", stops.append)
    # When it was waited for, then it is stopped only where this run started it.
    with pytest.raises(SetupError, match="was stopped" if started_now else "goes on running"):
        server.wait_until_ready(Places(tmp_path, tmp_path), "http://127.0.0.1:9", started_now=started_now)
    assert len(stops) == stopped


def test_a_server_that_runs_as_it_should_is_not_taken_for_one_started_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that runs with this very configuration
    places = Places(tmp_path, tmp_path / ".state")
    places.make()
    waits: list[bool] = []
    monkeypatch.setattr(server, "is_running", lambda _places: True)
    monkeypatch.setattr(server, "_remembered", lambda _places: {"port": 9000, "private_port": 9001})
    monkeypatch.setattr(server.supervision, "code_fingerprint", lambda _checkout: "0123")
    monkeypatch.setattr(server.supervision, "render", lambda _plan: "the same")
    monkeypatch.setattr(server, "wait_until_ready", lambda *_, started_now: waits.append(started_now))
    (places.run / "supervisord.conf").write_text("the same")
    # When it is ensured, then it is waited for as somebody else's.
    server.ensure(places, 9000, "unix:///e.sock")
    assert waits == [False]


def test_leftovers_are_removed_over_a_connection_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that is reached with settings of its own (TLS), and does not answer
    asked: list[str] = []

    def connect(host: str) -> None:
        asked.append(host)
        raise DockerException("no answer")

    monkeypatch.setattr(engine, "connect", connect)
    # When leftovers are to be removed, then that door is taken, and the failure is one sentence.
    with pytest.raises(SetupError, match="could not be removed"):
        leftovers.remove("tcp://h:2376", "ab12")
    assert asked == ["tcp://h:2376"]
