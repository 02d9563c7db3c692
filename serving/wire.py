"""One HTTP/1.1 connection as gunicorn reads it, made patient with the honest and short with the rest.

The worker makes these objects for each connection. They add to gunicorn's own parser: a limit on how long a
client may stall, `100 Continue` only when somebody wants the body, and `Connection: close` where an answer
leaves much of the body unread. Nothing here decides what a request means.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn

# The head of a request (its line and headers) may be this long at most.
MAX_HEAD_BYTES = 64 * 1024
# gunicorn reads over this much of an unread body to keep the connection; beyond it, closing is cheaper.
_WORTH_DRAINING_BYTES = 64 * 1024
# Over each stall period a client must send at least this much on average, or it counts as stalled.
_SLOWEST_BYTES_PER_SECOND = 256
# A body that nobody wanted is read over by the request's thread, so only what is nearly here is waited for.
_DRAIN_SECONDS = 1.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Patience:
    """Seconds that the worker waits for a client."""

    head_seconds: float = 10.0
    stall_seconds: float = 60.0
    linger_seconds: float = 5.0


class PacedUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn publishes no types.
    """Reads the socket; raises ``TimeoutError`` when the client stalls, or trickles so as not to seem to."""

    def __init__(self, sock: socket.socket, stall_seconds: float) -> None:
        super().__init__(sock)
        self.request: WireRequest | None = None
        self._stall_seconds = stall_seconds
        self._waited_seconds = 0.0
        self._received_bytes = 0
        self._deadline: float | None = None

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What the socket has next, ``b""`` at its end."""
        if self.request is not None and self.request.awaits_continue:
            self.request.awaits_continue = False
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        before = time.monotonic()
        data: bytes = self._receive(size_hint, before)
        # Only the time spent waiting counts: a slow disk of ours is not the client's fault.
        self._waited_seconds += time.monotonic() - before
        self._received_bytes += len(data)
        if self._waited_seconds > self._stall_seconds:
            if self._received_bytes < _SLOWEST_BYTES_PER_SECOND * self._stall_seconds:
                raise TimeoutError("the client sends too slowly")
            self.begin()
        return data

    def _receive(self, size_hint: int | None, now: float) -> bytes:
        if self._deadline is None:
            return bytes(super().chunk(size_hint))
        left = self._deadline - now
        if left <= 0:
            raise TimeoutError("the client's time is up")
        usual = self.sock.gettimeout()
        self.sock.settimeout(left if usual is None else min(left, usual))
        try:
            return bytes(super().chunk(size_hint))
        finally:
            self.sock.settimeout(usual)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """While this is entered, receiving raises ``TimeoutError`` once ``seconds`` are over."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = None

    def begin(self) -> None:
        """Start a new period of measuring."""
        self._waited_seconds = 0.0
        self._received_bytes = 0


class WireRequest(Request):  # type: ignore[misc]
    """A parsed head. ``awaits_continue``: the client holds its body back until it is asked for."""

    def __init__(self, cfg: Any, unreader: PacedUnreader, peer_addr: Any, req_number: int = 1) -> None:
        self.awaits_continue = False
        unreader.request = None
        super().__init__(cfg, unreader, peer_addr, req_number)
        # gunicorn would answer the expectation before the application has looked at the request.
        expected: bool = self._expected_100_continue  # type: ignore[has-type]
        self.awaits_continue = expected
        self._expected_100_continue = False
        unreader.begin()
        unreader.request = self

    def should_close(self) -> bool:
        """Whether the connection cannot serve another request after the answer."""
        return bool(super().should_close()) or self._leaves_much_unread()

    def _leaves_much_unread(self) -> bool:
        if self.awaits_continue:
            # Whether the body still follows is now the client's choice, so the next head cannot be found.
            return True
        reader = getattr(self.body, "reader", None)
        if isinstance(reader, LengthReader):
            return bool(reader.length > _WORTH_DRAINING_BYTES)
        return isinstance(reader, ChunkedReader) and reader.parser is not None


class WireParser(RequestParser):  # type: ignore[misc]
    """Reads requests off one connection."""

    mesg_class = WireRequest

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, stall_seconds: float) -> None:
        super().__init__(cfg, sock, client)
        self.unreader = PacedUnreader(sock, stall_seconds)

    def finish_body(self, deadline: float | None = None, max_bytes: int | None = None) -> bool:
        """Read over what is left of a body; False where it does not come at once, to spare the thread."""
        with self.unreader.within(_DRAIN_SECONDS):
            return bool(super().finish_body(deadline, max_bytes))


class Connection(TConn):  # type: ignore[misc]
    """A client's connection. ``head`` gathers a request's head before a thread is spent on it."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, patience: Patience) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = bytearray()
        self.deadline = 0.0
        # Set where the head cannot be accepted: the thread then only says so.
        self.refusal: Exception | None = None
        self.parser = WireParser(cfg, sock, client, patience.stall_seconds)
        self.initialized = True

    def hand_over_head(self) -> None:
        """Give the gathered bytes to the parser; the socket blocks from now on."""
        self.sock.settimeout(None)
        self.parser.unreader.unread(bytes(self.head))
        self.head.clear()


def head_is_readable(head: bytes | bytearray) -> bool:
    """Whether gunicorn's parser can judge ``head`` without waiting for more of it."""
    if b"\r\n\r\n" in head:
        return True
    # A bare line feed never becomes right; the parser refuses it at once.
    return head.count(b"\n") != head.count(b"\r\n")


def client_is_gone(environ: dict[str, Any]) -> bool:
    """Whether the client of the request in ``environ`` has closed its connection, as far as is seen now."""
    sock: socket.socket | None = environ.get("gunicorn.socket")
    if sock is None:
        return False
    poll = select.poll()
    try:
        poll.register(sock, select.POLLIN)
        if not poll.poll(0):
            return False
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True


def abort_connection(environ: dict[str, Any], reason: str) -> OSError:
    """Make the connection end in a reset, and return the error to raise: a cut answer must not look whole."""
    sock: socket.socket | None = environ.get("gunicorn.socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return ConnectionResetError(errno.ECONNRESET, reason)


def is_aborted(sock: socket.socket) -> bool:
    """Whether ``abort_connection`` has been called for ``sock``."""
    size = len(_RESET_ON_CLOSE)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, size) == _RESET_ON_CLOSE
