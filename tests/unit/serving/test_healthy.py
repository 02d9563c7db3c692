"""The health check of our images, as an engine runs it: by what it exits with."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "serving" / "healthy.sh"


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - The library's name.
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def healthy(port: int, path: str) -> bool:
    command = ["bash", str(SCRIPT), str(port), path]
    return subprocess.run(command, check=False, timeout=30, capture_output=True).returncode == 0


def test_what_says_200_is_healthy_and_nothing_else(port: int) -> None:
    assert healthy(port, "/healthz")
    assert not healthy(port, "/overloaded")


def test_where_nobody_listens_nothing_is_healthy(port: int) -> None:
    # Port 9 is the discard service, which nobody runs any more.
    assert not healthy(9, "/healthz")
