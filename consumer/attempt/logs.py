"""Carrying a container's log to the server: follow, gather for a moment, send by offset, stop at the limit.

An attempt starts one follower per run. The engine keeps the log in files and replays it from the start: after
a stream of the engine's has broken off, what was read already is skipped. After an end of this process all is
sent again under the same offsets, of which the server takes what it has not got.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import Condition, Event, Thread

from consumer.outside.backoff import persist
from consumer.outside.engine import LogStream
from consumer.outside.errors import AbandonedError, EngineError, ServerError
from serving.logs import same_work

_log = logging.getLogger(__name__)

# What is waited for more of before it is sent: fast enough to be live, slow enough to be few requests.
GATHER_SECONDS = 0.2
PIECE_BYTES = 64 * 1024
# More than this is not taken from the engine while the server is away; it keeps the rest in its files.
BUFFER_BYTES = 1024**2
# The engine ends the stream a few milliseconds after the exit; a stuck one must not hold the verdict up.
END_SECONDS = 5.0
# An engine that was killed ends a stream silently.
_REOPEN_SECONDS = 0.5


class LogFollower:
    """Two threads: one reads the engine's stream, one sends. Offsets count bytes of the attempt's log."""

    def __init__(
        self,
        open_stream: Callable[[], LogStream],
        send: Callable[[int, bytes], int],
        *,
        limit_bytes: int,
        begins_at: int = 0,
    ) -> None:
        self._open_stream = open_stream
        self._send = send
        self._limit = limit_bytes
        # Where the next byte that is sent belongs, and how much of the engine's replay has been read already.
        self._offset = begins_at
        self._seen = 0
        # How far the stream that is open has come.
        self._position = 0
        self._buffer = bytearray()
        self._changed = Condition()
        self._exited = Event()
        self._abandoned = Event()
        # The reader is to stop, whatever the engine still has.
        self._enough = Event()
        self._ended = False
        self._full = begins_at >= limit_bytes
        self._stream: LogStream | None = None
        self._reader = Thread(target=same_work(self._read), name="log-reader", daemon=True)
        self._sender = Thread(target=same_work(self._send_all), name="log-sender", daemon=True)

    def start(self) -> None:
        """Begin to follow; the container may not have been started yet."""
        self._reader.start()
        self._sender.start()

    def end_reading(self, note: str = "") -> None:
        """The container has ended: take the rest of its log, add ``note``, and let the sender finish."""
        self._exited.set()
        before = -1
        # The whole log may be on its way: a next life reads it from its beginning, and a busy engine is slow.
        while self._reader.is_alive() and self._position != before:
            before = self._position
            self._reader.join(END_SECONDS)
        self._enough.set()
        self._close_stream()
        with self._changed:
            if note and not self._full:
                self._buffer += note.encode()
            self._ended = True
            self._changed.notify_all()

    def sent(self, seconds: float) -> bool:
        """Whether everything has been sent, waiting up to ``seconds``; only after ``end_reading``."""
        self._sender.join(seconds)
        return not self._sender.is_alive()

    def abandon(self) -> None:
        """Nobody wants the log any more."""
        self._abandoned.set()
        self._enough.set()
        self._exited.set()
        self._close_stream()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _close_stream(self) -> None:
        stream = self._stream
        if stream is not None:
            stream.close()

    def _read(self) -> None:
        while not self._full:
            # Engines now and then end a stream that they follow before the last lines: when these and the
            # exit come together, or when no line's end comes (github.com/moby/moby/issues/43860). A stream
            # that is opened after the exit has all.
            was_over = self._exited.is_set()
            try:
                self._read_stream()
            except EngineError as error:
                _log.warning("reading the log failed: %s", error, extra={"action": "log_read_failed"})
            if self._full or self._enough.is_set() or was_over:
                return
            self._exited.wait(_REOPEN_SECONDS)

    def _read_stream(self) -> None:
        self._position = 0
        self._stream = stream = self._open_stream()
        for piece in stream:
            self._position += len(piece)
            fresh = self._position - self._seen
            if fresh <= 0:
                continue
            self._seen = self._position
            self._take(piece[-fresh:])
            if self._full or self._enough.is_set():
                self._close_stream()
                return

    def _take(self, piece: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._buffer) < BUFFER_BYTES or self._ended)
            room = self._limit - self._offset - len(self._buffer)
            self._buffer += piece[:room]
            # The sender may have set it meanwhile, when the server wanted no more.
            self._full = self._full or len(piece) >= room
            self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._ended)
                self._changed.wait_for(
                    lambda: len(self._buffer) >= PIECE_BYTES or self._ended, GATHER_SECONDS
                )
                piece = bytes(self._buffer[:PIECE_BYTES])
            if not piece:
                return
            try:
                stored = persist(partial(self._send, self._offset, piece), self._abandoned.wait)
            except (ServerError, AbandonedError) as error:
                _log.info("the rest of the log is not sent: %s", error, extra={"action": "log_given_up"})
                self._stop()
                return
            with self._changed:
                self._offset += len(piece)
                del self._buffer[: len(piece)]
                self._changed.notify_all()
            if stored < self._offset:
                self._stop()
                return

    def _stop(self) -> None:
        """The server takes no more: neither does the reader."""
        with self._changed:
            self._full = True
            self._buffer.clear()
            self._changed.notify_all()
        self._close_stream()
