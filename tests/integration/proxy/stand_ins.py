"""Stand-ins for the public API: one that lives as long as its test, and one that dies and comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.integration.public_api.public_api_processes import Handler, Seen, Upstream


class Requests(list[Seen]):
    """The requests that a stand-in has seen, less those by which Caddy looks after its health."""

    def append(self, seen: Seen) -> None:
        if seen.target != "/healthz":
            super().append(seen)


class MortalUpstream(Upstream):
    """A stand-in at a port that was chosen before, which takes its connections with it when it dies."""

    def __init__(self, port: int) -> None:
        super(Upstream, self).__init__(("127.0.0.1", port), Handler)
        self.script = {}
        self._connections: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(port: int | None = None) -> Iterator[Upstream]:
    """A stand-in, at a port of its own or at ``port``."""
    server = Upstream() if port is None else MortalUpstream(port)
    server.seen = Requests()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
