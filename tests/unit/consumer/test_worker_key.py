"""A key that is refused: looked up in its file again; what runs is stopped unless there is another soon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from consumer.attempt import heartbeat
from consumer.attempt.events import Event as AttemptEvent
from consumer.attempt.events import Stopped
from consumer.attempt.heartbeat import HeartbeatLoop
from consumer.attempt.verdict import Stop
from consumer.outside.errors import KeyRefusedError, ServerAwayError
from consumer.outside.server import Server
from consumer.outside.worker_key import WorkerKey
from contracts.messages import ClaimRequest, HeartbeatAnswer, SlotKind
from tests.unit.consumer.consumer_leases import lease

CLAIM = ClaimRequest(node="n", slot="s", kinds=[SlotKind.CPU], wait_seconds=0)
REFUSED = KeyRefusedError(401, "unauthenticated", "This key is not valid.")


class Door(BaseHTTPRequestHandler):
    """Lets one key in."""

    good = ""
    seen: list[str]

    def do_POST(self) -> None:
        key = self.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append(key)
        self.rfile.read(int(self.headers["Content-Length"]))
        if key == self.good:
            self.send_response(204)
            self.end_headers()
            return
        body = json.dumps({"code": "unauthenticated", "detail": "no"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def door() -> Iterator[tuple[str, type[Door]]]:
    handler = type("OneDoor", (Door,), {"good": "new", "seen": []})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", handler
    http.shutdown()
    http.server_close()
    thread.join(5)


def test_a_renewed_key_is_found_in_its_file(door: tuple[str, type[Door]], tmp_path: Path) -> None:
    url, handler = door
    file = tmp_path / "worker.key"
    file.write_text("old\n")
    server = Server(url, WorkerKey("old", file))
    # Given a key that is refused, and that its file still holds
    with pytest.raises(KeyRefusedError):
        server.claim(CLAIM)
    # When the file holds another, then the refusal is only a passing one
    file.write_text("new\n")
    with pytest.raises(ServerAwayError, match="renewed"):
        server.claim(CLAIM)
    assert server.claim(CLAIM) is None
    assert handler.seen == ["old", "old", "new"]


@pytest.mark.parametrize("text", [None, "", "old"])
def test_a_file_without_another_key_changes_nothing(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "worker.key"
    if text is not None:
        file.write_text(text)
    key = WorkerKey("old", file)
    assert not key.renewed_since("old")
    assert key.text == "old"


def test_whoever_was_first_has_read_it_for_all(tmp_path: Path) -> None:
    file = tmp_path / "worker.key"
    file.write_text("new")
    key = WorkerKey("old", file)
    assert key.renewed_since("old")
    file.unlink()
    assert key.renewed_since("old")
    assert not key.renewed_since("new")


def test_a_worker_whose_key_is_taken_away_stops_what_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an attempt whose heartbeats are heard, until the key is revoked
    monkeypatch.setattr(heartbeat, "KEY_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(heartbeat, "UNHELD_PAUSE_SECONDS", 0.05)
    revoked, said = Event(), []

    def beat(*_: object) -> HeartbeatAnswer:
        if revoked.is_set():
            raise REFUSED
        return HeartbeatAnswer(cancel_requested=False, log_bytes=0)

    over = Event()

    def hear(event: AttemptEvent) -> None:
        said.append(event)
        over.set()

    loop = HeartbeatLoop(lease(), beat, hear)
    loop.start()
    assert not over.wait(0.5)
    revoked.set()
    # Then it is told to stop, as one whose lease is lost: nothing that it says would be heard
    assert over.wait(5)
    assert isinstance(said[0], Stopped)
    assert said[0].stop is Stop.LEASE_LOST
    assert "key" in said[0].detail
    loop.close()


def test_a_key_that_is_renewed_in_time_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "KEY_GRACE_SECONDS", 5.0)
    monkeypatch.setattr(heartbeat, "UNHELD_PAUSE_SECONDS", 0.05)
    answers = iter([REFUSED, REFUSED])
    heard = Event()

    def beat(*_: object) -> HeartbeatAnswer:
        for refusal in answers:
            raise refusal
        heard.set()
        return HeartbeatAnswer(cancel_requested=False, log_bytes=0)

    said: list[AttemptEvent] = []
    loop = HeartbeatLoop(lease(), beat, said.append)
    loop.start()
    began = time.monotonic()
    assert heard.wait(5), time.monotonic() - began
    assert said == []
    loop.close()
