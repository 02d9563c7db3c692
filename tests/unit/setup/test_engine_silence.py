"""What becomes of pulls and builds when the engine falls silent, breaks off or refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest

from setup.console import SetupError
from setup.engine import pulling
from setup.images import images

RECIPE = images.Recipe("t:1", "a test", {"Dockerfile": b"FROM scratch"}, "p:1")


@contextmanager
def engine_that_says(first: bytes, *, then_cuts: bool = False) -> Iterator[docker.DockerClient]:
    """An engine that begins to answer with ``first`` and then says nothing more, or hangs up."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if first:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(first), first))
            if not then_cuts:
                over.wait(20)
            self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{server.server_port}", version="1.41")
    try:
        yield client
    finally:
        over.set()
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("first", [b"", b'{"status":"Pulling from library/debian"}\r\n'])
def test_a_pull_is_given_up_after_a_silence(first: bytes) -> None:
    with engine_that_says(first) as engine:
        assert "no registry answered" in pulling.pull(engine, "some/image:1", silence_seconds=0.2)


def test_a_pull_that_breaks_off_is_no_traceback() -> None:
    with engine_that_says(b'{"status":"Pulling"}\r\n', then_cuts=True) as engine:
        assert "no registry answered" in pulling.pull(engine, "some/image:1")


def test_a_pull_that_is_refused_says_why() -> None:
    with engine_that_says(b'{"status":"Pulling"}\r\n{"error":"toomanyrequests"}\r\n') as engine:
        assert pulling.pull(engine, "some/image:1") == "toomanyrequests"


@pytest.mark.parametrize("then_cuts", [True, False])
def test_a_build_that_breaks_off_or_falls_silent_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then_cuts: bool
) -> None:
    monkeypatch.setattr(images, "BUILD_SILENCE_SECONDS", 0.2)
    with (
        engine_that_says(b'{"stream":"Step 1/1 : FROM scratch"}\r\n', then_cuts=then_cuts) as engine,
        pytest.raises(SetupError, match=r"broke off while it built t:1.*run this again"),
    ):
        images._build(engine, RECIPE, "f", tmp_path / "build.log")
