"""A TLS connection for bytes of one's own, which may end its sending half and go on reading.

Python's own TLS sockets cannot: their `shutdown` forgets that there was TLS. Protocol: RFC 8446, 6.1, by
which a `close_notify` closes one direction only.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from types import TracebackType


class TlsConnection:
    """What the tests use of a socket, over TLS."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, timeout: float = 20) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
        self._flush()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._tls.write(data)
        self._flush()

    def shutdown(self, _how: int) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def settimeout(self, seconds: float) -> None:
        """How long a read waits."""
        self._socket.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """Some bytes; empty when the other side sends no more."""
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                if not self._receive():
                    return b""
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def close(self) -> None:
        """Close both directions."""
        self._socket.close()

    def __enter__(self) -> TlsConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _flush(self) -> None:
        if pending := self._to_send.read():
            self._socket.sendall(pending)

    def _receive(self) -> bool:
        data = self._socket.recv(65536)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()
        return bool(data)
