"""What a command in a container says arrives whole, however the engine's answer is cut up on its way.

The engine is a stand-in: a real one sends the head of its answer and the first bytes together only when its
client is slow to read.
"""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import docker
import pytest

from setup.console import SetupError
from setup.engine import container_streams

HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@contextmanager
def engine_that_sends(
    *, frames: bytes, status: int = 0, heard: bytearray | None = None
) -> Iterator[docker.DockerClient]:
    """An engine whose answer to a command comes at once, and which ends when its input has."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "/exec/e/start" in self.path or "/c/attach" in self.path:
                self.connection.sendall(HEAD + frames)
                if heard is not None:
                    heard.extend(self.rfile.read())
                self.connection.shutdown(socket.SHUT_WR)
                self.close_connection = True
            else:
                self._answer({"Id": "e", "StatusCode": status})

        def do_GET(self) -> None:
            self._answer({"ExitCode": status})

        def _answer(self, document: dict[str, object]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.41")
    try:
        yield client
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_comes_with_the_head_of_the_answer_is_not_lost() -> None:
    frames = frame(1, b"first ") + frame(2, b"by the way\n") + frame(1, b"and last")
    target = io.BytesIO()
    with engine_that_sends(frames=frames) as engine:
        assert container_streams.run(engine, "c", ["command"], target=target) == "by the way"
    assert target.getvalue() == b"first and last"


def test_a_container_of_its_own_is_heard_from_the_beginning() -> None:
    target, heard = io.BytesIO(), bytearray()
    with engine_that_sends(frames=frame(1, b"all of it"), status=3, heard=heard) as engine:
        source = io.BytesIO(b"its input")
        assert container_streams.run_container(engine, "c", source=source, target=target) == (3, "")
    assert (target.getvalue(), heard) == (b"all of it", b"its input")


def test_a_command_that_fails_is_an_error_with_its_words() -> None:
    with (
        engine_that_sends(frames=frame(2, b"no such role\n"), status=2) as engine,
        pytest.raises(SetupError, match="`command` ended with 2: no such role"),
    ):
        container_streams.run(engine, "c", ["command"])


@pytest.mark.parametrize("length", [3, 11])
def test_a_frame_that_breaks_off_is_an_error(length: int) -> None:
    with (
        engine_that_sends(frames=frame(1, b"all of it")[:length]) as engine,
        pytest.raises(SetupError, match="broke off"),
    ):
        container_streams.run(engine, "c", ["command"], target=io.BytesIO())
