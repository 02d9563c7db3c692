"""A stand-in for an image registry that has nothing, and may be slow to say so.

The engine asks it as it would any other: on the loopback it speaks plain HTTP. Protocol: OCI distribution
specification 1.1, as far as a pull of what does not exist goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


class Registry:
    """Listens on a port of its own until it is closed."""

    def __init__(self) -> None:
        self._answering = Event()
        self._answering.set()
        answering = self._answering

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                if self.path == "/v2/":
                    self._answer(200, {})
                    return
                answering.wait(60)
                unknown = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {}}
                self._answer(404, {"errors": [unknown]})

            def _answer(self, status: int, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - The library's name.
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Leave every question about an image unanswered meanwhile."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    def close(self) -> None:
        """Stop listening."""
        self._answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
