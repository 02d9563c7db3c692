"""The connections to the private API: kept open between calls, given up at the first doubt.

The relay sends a ``Call`` and gets an ``Answer``, which it must read to its end or close.
"""

from __future__ import annotations

import http.client
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from public_api.exchange import Call, ClosedUnansweredError, exchange, poll_once
from public_api.headers import Headers

_CONNECT_SECONDS = 3.0
# Clients read one piece within the stall time, so its size sets the slowest client that is served.
_PIECE_BYTES = 256 * 1024


class UpstreamError(Exception):
    """The private API cannot be reached, hangs, or broke off."""


class Answer:
    """An answer whose head has arrived. ``early``: it came before the whole body had been sent."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        release: Callable[[bool], None],
        *,
        early: bool,
    ) -> None:
        self._response = response
        self._release: Callable[[bool], None] | None = release
        self._then: Callable[[], None] | None = None
        self.status = response.status
        self.headers: Headers = response.getheaders()
        self.length = response.length
        self.early = early

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives; raises ``UpstreamError`` where it falls short."""
        received = 0
        try:
            while piece := self._response.read1(_PIECE_BYTES):
                received += len(piece)
                yield piece
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise UpstreamError(f"the answer broke off after {received} bytes") from error
        if self.length is not None and received < self.length:
            self.close()
            raise UpstreamError(f"the answer ended after {received} of {self.length} bytes")
        self._finish(reusable=not self.early and not self._response.will_close)

    def read(self, maximum_bytes: int) -> bytes:
        """The whole body; raises ``UpstreamError`` where it falls short or is larger."""
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > maximum_bytes:
                self.close()
                raise UpstreamError("the answer is too large")
        return bytes(body)

    def close(self) -> None:
        """Let go of the connection; one that is not read to its end is closed."""
        self._finish(reusable=False)

    def on_close(self, then: Callable[[], None]) -> None:
        """Call ``then`` once the answer has ended, however it does."""
        self._then = then
        if self._release is None:
            then()

    def _finish(self, *, reusable: bool) -> None:
        release, self._release = self._release, None
        if release is not None:
            # The connection's own bookkeeping wants the answer closed before the next request.
            self._response.close()
            release(reusable)
            if self._then is not None:
                self._then()


class ConnectionPool:
    """Connections for one kind of call; ``idle`` of them at most are kept."""

    def __init__(self, url: str, *, idle: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: deque[http.client.HTTPConnection] = deque(maxlen=idle)
        self._lock = threading.Lock()

    def send(self, call: Call) -> Answer:
        """Send ``call`` and wait for the head of its answer.

        Raises ``UpstreamError``, ``WaitAbandonedError``, and what the iterator of its body raises. A GET is
        sent again, once, where an idle connection turned out to be closed; never after a time-out, and never
        with a body that has been used up.
        """
        connection = self._take_idle()
        if connection is not None:
            try:
                return self._send_on(connection, call)
            except UpstreamError as error:
                closed = isinstance(error.__cause__, ClosedUnansweredError)
                if not (closed and call.method in {"GET", "HEAD"} and isinstance(call.body, bytes)):
                    raise
        return self._send_on(self._connect(), call)

    def _take_idle(self) -> http.client.HTTPConnection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # An idle connection has nothing to say: if it has, the other side has closed it.
            if connection.sock is not None and not poll_once(connection.sock, select.POLLIN, 0):
                return connection
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise UpstreamError(f"no connection: {error}") from error
        return connection

    def _send_on(self, connection: http.client.HTTPConnection, call: Call) -> Answer:
        def release(reusable: bool) -> None:  # noqa: FBT001
            if not reusable:
                connection.close()
                return
            with self._lock:
                if len(self._idle) < (self._idle.maxlen or 0):
                    self._idle.append(connection)
                    return
            connection.close()

        try:
            response, early = exchange(connection, call)
            return Answer(response, release, early=early)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise UpstreamError(f"no answer: {error!r}") from error
        except BaseException:
            connection.close()
            raise
