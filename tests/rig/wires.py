"""A piece of wire between a client and a server that a test listens to, changes bytes on, or cuts."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

_PIECE_BYTES = 64 * 1024


class Wire:
    """Listens on a port of its own and passes on to ``host:port`` what comes, in both directions.

    ``damage`` replaces bytes on their way to the server; ``cut_after_bytes`` ends each connection when the
    server has answered so much.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.damage: tuple[bytes, bytes] | None = None
        self.cut_after_bytes: int | None = None
        self.sent = b""
        self.connections = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A blocked `accept` notices a shutdown, and not a close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for held in self._sockets:
            _end(held)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target, timeout=30)
            except OSError:
                return
            self.connections += 1
            self._sockets += [near, far]
            threading.Thread(target=self._carry, args=(near, far), kwargs={"out": True}, daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near), kwargs={"out": False}, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, *, out: bool) -> None:
        answered = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if out:
                    self.sent = (self.sent + data)[:_PIECE_BYTES]
                    if self.damage is not None:
                        data = data.replace(*self.damage)
                elif self.cut_after_bytes is not None:
                    data = data[: self.cut_after_bytes - answered]
                    answered += len(data)
                sink.sendall(data)
                if not out and answered == self.cut_after_bytes:
                    break
        _end(source)
        _end(sink)


def _end(held: socket.socket) -> None:
    with contextlib.suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)
    held.close()
