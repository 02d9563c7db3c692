"""One request and its answer on a connection to the private API, watched more closely than clients need to.

The standard library's HTTP client is used beneath its usual surface because a relay must see an answer that
comes while the body is still being sent, and a caller that leaves while it waits.
"""

from __future__ import annotations

import http.client
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from public_api.headers import Headers

# No byte for this long while either side should be sending one: the private API hangs.
_STALL_SECONDS = 60.0
# How long the private API may think before it says whether it wants a body.
_EXPECT_SECONDS = 2.0
# How often a wait looks whether it is still wanted.
_LOOK_SECONDS = 0.5
# How often a head that has begun to arrive is looked at again.
_HEAD_LOOK_SECONDS = 0.01
_INTERIM = b"HTTP/1.1 1"


class WaitAbandonedError(Exception):
    """Nobody wants the answer any more."""


class ClosedUnansweredError(ConnectionError):
    """The connection was found closed before a byte of an answer had come."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request to send. A ``body`` of bytes goes whole; pieces are streamed, chunked without ``length``."""

    method: str
    target: str
    headers: Headers
    body: bytes | Iterator[bytes] = b""
    length: int | None = None
    answer_seconds: float
    # Asked now and then while the answer is awaited; True gives up.
    is_abandoned: Callable[[], bool] | None = None


def exchange(connection: http.client.HTTPConnection, call: Call) -> tuple[http.client.HTTPResponse, bool]:
    """Send ``call`` on an open connection and wait for the head of its answer.

    Also says whether the answer came early, before the whole body had been sent. Raises ``OSError`` (of which
    ``ClosedUnansweredError``) and ``HTTPException`` where the connection breaks, ``WaitAbandonedError``, and
    what the iterator raises.
    """
    sock: socket.socket = connection.sock
    sock.settimeout(_STALL_SECONDS)
    sent = _send_request(connection, sock, call)
    _await_answer(sock, call)
    sock.settimeout(_STALL_SECONDS)
    if not _peek(sock):
        raise ClosedUnansweredError("closed without an answer")
    response = connection.getresponse()
    if response.length is None and not response.chunked and response.will_close:
        # Its end could not be told from a break.
        raise http.client.HTTPException("the answer has no length")
    return response, not sent


def _send_request(connection: http.client.HTTPConnection, sock: socket.socket, call: Call) -> bool:
    """Whether all of it was sent before an answer came."""
    connection.putrequest(call.method, call.target, skip_host=True, skip_accept_encoding=True)
    for name, value in call.headers:
        connection.putheader(name, value)
    if isinstance(call.body, bytes):
        if call.body or call.method in {"POST", "PUT", "PATCH"}:
            connection.putheader("Content-Length", str(len(call.body)))
        try:
            connection.endheaders(call.body or None)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedUnansweredError(str(error)) from error
        return True
    if call.length is None:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(call.length))
    # So that a refusal comes before the client has sent gigabytes in vain.
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    return _body_is_wanted(sock) and _send_pieces(sock, call.body, chunked=call.length is None)


def _body_is_wanted(sock: socket.socket) -> bool:
    """Whether to send the body: the private API asks for it, or has not said anything for a while."""
    return not poll_once(sock, select.POLLIN, _EXPECT_SECONDS) or _take_interim(sock)


def _take_interim(sock: socket.socket) -> bool:
    """Consume an interim answer (1xx), which may come late; False, with nothing consumed, for anything else.

    To be called where something can be read.
    """
    deadline = time.monotonic() + _EXPECT_SECONDS
    while (head := _peek(sock)) and head.startswith(_INTERIM[: len(head)]):
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            sock.recv(end + 4)
            return True
        if time.monotonic() > deadline:
            break
        # What has been peeked at stays readable, so that a poll would not wait for the rest.
        time.sleep(_HEAD_LOOK_SECONDS)
    return False


def _send_pieces(sock: socket.socket, pieces: Iterator[bytes], *, chunked: bool) -> bool:
    """Whether all was sent before an answer came."""
    sock.settimeout(0)
    for piece in pieces:
        frame = [b"%x\r\n" % len(piece), piece, b"\r\n"] if chunked else [piece]
        if not all(_send(sock, part) for part in frame):
            return False
    return _send(sock, b"0\r\n\r\n") if chunked else True


def _send(sock: socket.socket, data: bytes) -> bool:
    """Send all of ``data``, or return False as soon as the other side answers or closes."""
    view = memoryview(data)
    while view:
        events = poll_once(sock, select.POLLIN | select.POLLOUT, _STALL_SECONDS)
        if not events:
            _hangs()
        if events & ~select.POLLOUT:
            if events & select.POLLIN and _take_interim(sock):
                continue
            return False
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            continue
        except OSError:
            return False  # What it had to say may still be readable.
    return True


def _await_answer(sock: socket.socket, call: Call) -> None:
    deadline = time.monotonic() + call.answer_seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        if poll_once(sock, select.POLLIN, min(_LOOK_SECONDS, left)) and not _take_interim(sock):
            return
        if call.is_abandoned is not None and call.is_abandoned():
            raise WaitAbandonedError
        if time.monotonic() >= deadline:
            _hangs()


def _peek(sock: socket.socket) -> bytes:
    """What can be read next, left where it is; nothing where the connection has ended, however it did."""
    try:
        return sock.recv(4096, socket.MSG_PEEK)
    except ConnectionError:
        return b""


def poll_once(sock: socket.socket, events: int, seconds: float) -> int:
    """The events that ``sock`` has within ``seconds``; 0 for none."""
    poll = select.poll()
    poll.register(sock, events)
    return sum(found for _, found in poll.poll(seconds * 1000))


def _hangs() -> NoReturn:
    raise TimeoutError("the private API does not respond")
