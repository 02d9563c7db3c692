"""The gunicorn worker of both services: threads for requests, and none for clients that dawdle.

gunicorn makes one of these in the process that serves. It differs from gunicorn's own threaded worker so:

- a thread is spent on a request only when its whole head has arrived;
- a client that stalls in its body, or in reading the answer, loses its connection;
- a connection that ends is drained by the main loop for a moment, so that a client which is still sending can
  read why it was refused (gunicorn's worker would wait for it there, up to two seconds for each);
- what gunicorn itself refuses leaves as a problem document, never as HTML;
- a stop sets ``serving.stopping`` before anything else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import time
from functools import partial
from typing import Any

from gunicorn.http.errors import (
    ConfigurationProblem,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    ParseException,
)
from gunicorn.workers.gthread import ThreadWorker

from contracts.problems import PROBLEM_CONTENT_TYPE, PROBLEMS, ProblemCode
from serving import stopping
from serving.http_metrics import IN_FLIGHT, THREADS, count_refusal
from serving.problems import problem_document
from serving.wire import MAX_HEAD_BYTES, Connection, Patience, head_is_readable, is_aborted

_log = logging.getLogger(__name__)

# A stop waits this long for a request that may be on its way on an idle connection.
_STOP_IDLE_SECONDS = 0.5
_RECEIVE_BYTES = 64 * 1024
_ANSWER_SECONDS = 5.0
_OUR_MISTAKES = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn publishes no types.
    """See the module; ``patience`` is set by the server before it starts."""

    patience = Patience()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Connections whose next head has not arrived, and connections that end: both wait in the main loop.
        self._heads: set[Connection] = set()
        self._ending: set[Connection] = set()

    def init_process(self) -> None:
        """Begin to serve, in the process that serves."""
        THREADS.set(self.cfg.threads)
        super().init_process()

    # Stopping.

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: finish what is in flight."""
        stopping.set()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGQUIT and SIGINT: end now."""
        stopping.set()
        super().handle_quit(sig, frame)

    def _cap_keepalive(self, deadline: float) -> None:
        # gunicorn calls this once, when it stops accepting.
        soon = min(deadline, time.monotonic() + _STOP_IDLE_SECONDS)
        super()._cap_keepalive(soon)
        for conn in self._heads | self._ending:
            conn.deadline = min(conn.deadline, soon)

    # From a new or idle connection to a request in a thread.

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection and wait for its first head."""
        try:
            sock, address = listener.accept()
        except OSError:
            # It was reset, or descriptors have run out; the listener is asked again in the next turn.
            return
        self.nr_conns += 1
        conn = Connection(self.cfg, sock, address, listener.getsockname(), self.patience)
        self._await_head(conn)

    def on_client_socket_readable(self, conn: Connection, client: socket.socket) -> None:
        """An idle connection has something to say."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)

    def _await_head(self, conn: Connection) -> None:
        conn.sock.settimeout(0)
        conn.deadline = time.monotonic() + self.patience.head_seconds
        self._heads.add(conn)
        # It is usually there already.
        self._read_head(conn)
        if conn in self._heads:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._read_head, conn))

    def _read_head(self, conn: Connection, _sock: object = None) -> None:
        if not head_is_readable(conn.head):
            try:
                data = conn.sock.recv(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._drop(conn)
                return
            conn.head += data
        if head_is_readable(conn.head):
            self._dispatch(conn)
        elif len(conn.head) > MAX_HEAD_BYTES:
            conn.refusal = LimitRequestHeaders(f"they are longer than {MAX_HEAD_BYTES} bytes")
            self._dispatch(conn)

    def _dispatch(self, conn: Connection) -> None:
        self._heads.discard(conn)
        self._stop_watching(conn)
        conn.hand_over_head()
        self.enqueue_req(conn)

    # One request, in a thread.

    def handle(self, conn: Connection) -> Any:
        """Serve one request; whether the connection can serve another."""
        if conn.refusal is not None:
            self.handle_error(None, conn.sock, conn.client, conn.refusal)
            return False
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Call the application. A socket that makes no progress for the stall time ends the request."""
        conn.sock.settimeout(self.patience.stall_seconds)
        IN_FLIGHT.inc()
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            _log.info("a client stopped reading its answer", extra={"client": str(conn.client[0])})
            return False
        finally:
            IN_FLIGHT.dec()

    def handle_error(self, _req: Any, client: socket.socket, _addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn refuses, or what escaped the application, as a problem document."""
        if isinstance(exc, ParseException) and not isinstance(exc, _OUR_MISTAKES):
            code, detail = refusal_of(exc)
        else:
            _log.error("error outside the application", exc_info=exc)
            code = ProblemCode.INTERNAL_ERROR
            detail = "Something went wrong on the server; its log says what."
        count_refusal(PROBLEMS[code].status)
        try:
            client.settimeout(_ANSWER_SECONDS)
            client.sendall(closing_answer(code, detail))
        except OSError:
            _log.debug("the client left before its answer")

    # The end of a request, and of a connection; in the main loop again.

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Keep the connection for the next request, or end it."""
        keep = not fs.cancelled() and fs.exception() is None and bool(fs.result())
        try:
            if not keep:
                self._end(conn)
            elif ahead := conn.parser.unreader.take_buffered():
                # The client has sent part of its next request already.
                conn.head += ahead
                self._await_head(conn)
            else:
                super().finish_request(conn, fs)
        except (OSError, ValueError):
            self._drop(conn)

    def _end(self, conn: Connection) -> None:
        if is_aborted(conn.sock):
            self._drop(conn)
            return
        conn.sock.shutdown(socket.SHUT_WR)
        conn.sock.settimeout(0)
        conn.deadline = time.monotonic() + self.patience.linger_seconds
        self._ending.add(conn)
        # Most clients have closed their side by now.
        self._discard(conn)
        if conn in self._ending:
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._discard, conn))

    def _discard(self, conn: Connection, _sock: object = None) -> None:
        try:
            if conn.sock.recv(_RECEIVE_BYTES):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._drop(conn)

    def murder_pending(self) -> None:
        """Each turn of the main loop: part with connections whose time is up."""
        now = time.monotonic()
        for conn in [conn for conn in self._heads if conn.deadline <= now]:
            self._give_up_on_head(conn)
        for conn in [conn for conn in self._ending if conn.deadline <= now]:
            self._drop(conn)

    def _give_up_on_head(self, conn: Connection) -> None:
        if conn.head:
            try:
                # The socket does not block and its buffer is empty, so this returns at once.
                conn.sock.send(closing_answer(ProblemCode.REQUEST_TIMED_OUT, "The headers stopped arriving."))
            except OSError:
                _log.debug("the client left before its answer")
        self._drop(conn)

    def _stop_watching(self, conn: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):  # It may not be waiting in the main loop.
            self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        self._heads.discard(conn)
        self._ending.discard(conn)
        self._stop_watching(conn)
        self.nr_conns -= 1
        conn.close()


def refusal_of(error: BaseException) -> tuple[ProblemCode, str]:
    """The problem for what gunicorn's parser refused. Pure."""
    if isinstance(error, LimitRequestLine):
        return ProblemCode.URI_TOO_LONG, "The request line is too long; send parameters in the body instead."
    if isinstance(error, LimitRequestHeaders):
        return ProblemCode.HEADERS_TOO_LARGE, "The request's headers are too large or too many."
    return ProblemCode.BAD_REQUEST, f"This is not a well-formed HTTP/1.1 request: {error}."


def closing_answer(code: ProblemCode, detail: str) -> bytes:
    """A whole HTTP answer with a problem document, after which the connection ends. Pure."""
    document = problem_document(code, detail)
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {document['status']} {document['title']}\r\n"
        f"Connection: close\r\nContent-Type: {PROBLEM_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
