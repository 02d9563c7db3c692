"""A silent engine: every call ends in time, but the body of a wait may take as long as a model does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from consumer.outside.docker_engine import DockerEngine
from consumer.outside.errors import AbandonedError, EngineAwayError
from tests.rig.polling import eventually


class SilentEngine:
    """Answers what a client asks at first; then each call as the test says."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.head_at_once = False
        self.pulls = 0
        silent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(json.dumps({"ApiVersion": "1.41", "Version": "20.10"}).encode())

            def do_POST(self) -> None:
                silent.pulls += "/images/create" in self.path
                if silent.head_at_once:
                    self._head()
                    self.wfile.flush()
                    silent.may_answer.wait(60)
                    self._chunk(json.dumps({"StatusCode": 7}).encode())
                    self._chunk(b"")
                else:
                    silent.may_answer.wait(60)
                    self.close_connection = True

            def _head(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

            def _chunk(self, piece: bytes) -> None:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - The library's name.
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"tcp://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def silent() -> Iterator[SilentEngine]:
    silent = SilentEngine()
    yield silent
    silent.close()


@pytest.fixture
def engine(silent: SilentEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    engine = DockerEngine(silent.address)
    # Only now: its first calls are answered, and may take their time.
    monkeypatch.setattr("consumer.outside.docker_engine.CALL_SECONDS", 1.5)
    engine._api.timeout = 1.5
    yield engine
    engine._api.close()


def test_an_engine_that_does_not_begin_to_answer_a_wait_is_away(engine: DockerEngine) -> None:
    began = time.monotonic()
    with pytest.raises(EngineAwayError):
        engine.watch_exit("container")
    assert time.monotonic() - began < 30


def test_an_exit_may_come_long_after_the_beginning_of_the_answer(
    silent: SilentEngine, engine: DockerEngine
) -> None:
    # Given an engine that has registered us
    silent.head_at_once = True
    watch = engine.watch_exit("container")
    # When the exit comes after more time than any call may take
    threading.Timer(4.0, silent.may_answer.set).start()
    # Then it is seen
    assert watch.result() == 7
    watch.close()


def test_a_pull_from_a_silent_registry_ends_soon_after_it_is_abandoned(
    silent: SilentEngine, engine: DockerEngine
) -> None:
    # Given a pull of which nothing is heard
    abandoned = threading.Event()
    ended: list[Exception] = []

    def pull() -> None:
        try:
            engine.pull_image("registry/image:1", abandoned)
        except Exception as error:  # noqa: BLE001 - Looked at below.
            ended.append(error)

    thread = threading.Thread(target=pull)
    thread.start()
    # When the silence has been long enough to ask again
    eventually(lambda: silent.pulls >= 2, 10, "it is asked again")
    # And it is not wanted any more
    abandoned.set()
    # Then its thread ends
    thread.join(20)
    assert not thread.is_alive()
    assert [type(error) for error in ended] == [AbandonedError]
