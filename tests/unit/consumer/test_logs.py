"""Following a log: batches, offsets, the limit, and going on after an interruption."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import pytest

from consumer.attempt.logs import BUFFER_BYTES, PIECE_BYTES, LogFollower
from consumer.outside.errors import ServerAwayError


class Stream:
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if self.closed.is_set():
                return
            yield piece

    def close(self) -> None:
        self.closed.set()


class Store:
    """The server's half: appends, trims overlaps."""

    def __init__(self, before: bytes = b"", trouble: int = 0) -> None:
        self.log = bytearray(before)
        self.calls: list[tuple[int, int]] = []
        self.trouble = trouble

    def append(self, offset: int, piece: bytes) -> int:
        if self.trouble:
            self.trouble -= 1
            raise ServerAwayError("away")
        assert offset <= len(self.log), "no gap"
        self.calls.append((offset, len(piece)))
        self.log += piece[len(self.log) - offset :]
        return len(self.log)


def follow(pieces: Iterable[bytes], store: Store, *, limit: int = 10**6, begins_at: int = 0) -> Stream:
    stream = Stream(pieces)
    follower = LogFollower(lambda: stream, store.append, limit_bytes=limit, begins_at=begins_at)
    follower.start()
    follower.end_reading()
    assert follower.sent(10)
    return stream


def test_many_small_pieces_become_few_requests() -> None:
    store = Store()
    follow([b"x"] * 10_000, store)
    assert len(store.log) == 10_000
    assert len(store.calls) < 10


def test_an_adopted_log_goes_on_in_the_middle_of_a_piece() -> None:
    store = Store(before=b"abcd")
    follow([b"abc", b"def", b"ghi"], store)
    assert bytes(store.log) == b"abcdefghi"


def test_a_new_containers_log_follows_the_old_ones() -> None:
    store = Store(before=b"old ")
    follow([b"new"], store, begins_at=4)
    assert bytes(store.log) == b"old new"


def test_a_log_that_comes_slowly_is_read_to_its_end_and_one_that_is_stuck_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given an engine that takes longer for the whole log than it may be silent
    monkeypatch.setattr("consumer.attempt.logs.END_SECONDS", 1.0)
    store, stuck = Store(), threading.Event()

    def slowly() -> Iterator[bytes]:
        for _ in range(25):
            stuck.wait(0.06)
            yield b"line\n"
        stuck.wait(60)

    try:
        # When the container has ended
        follow(slowly(), store)
    finally:
        stuck.set()
    # Then all that came was taken, and what never comes was not waited for
    assert bytes(store.log) == b"line\n" * 25


def test_a_flood_is_cut_at_the_limit_and_its_stream_closed() -> None:
    endless = iter(lambda: b"x" * 1000, b"")
    store = Store()
    stream = follow(endless, store, limit=5500)
    assert len(store.log) == 5500
    assert stream.closed.is_set()


def test_trouble_with_the_server_loses_and_doubles_nothing() -> None:
    store = Store(trouble=3)
    follow([b"abc", b"def"], store)
    assert bytes(store.log) == b"abcdef"


def test_a_stream_that_ends_silently_is_opened_again_where_it_was() -> None:
    # Given an engine that breaks off in the middle and replays everything when asked again
    streams = iter([Stream([b"abc"])])
    opened = threading.Semaphore(0)

    def open_stream() -> Stream:
        opened.release()
        return next(streams, Stream([b"abc", b"def"]))

    store = Store()
    follower = LogFollower(open_stream, store.append, limit_bytes=100)
    follower.start()
    # When it has been opened twice and the container has ended
    assert opened.acquire(timeout=5)
    assert opened.acquire(timeout=5)
    follower.end_reading()
    # Then nothing is missing and nothing is there twice
    assert follower.sent(10)
    assert bytes(store.log) == b"abcdef"


def test_a_stream_that_ends_before_the_last_lines_is_read_again_after_the_exit() -> None:
    # Given an engine that ends what it follows when the container does, its last line still unsent
    exited = threading.Event()
    opened: list[Stream] = []

    def until_the_exit() -> Iterator[bytes]:
        yield b"abc"
        assert exited.wait(5)

    def open_stream() -> Stream:
        opened.append(Stream([b"abc", b"last words"] if opened else until_the_exit()))
        return opened[-1]

    store = Store()
    follower = LogFollower(open_stream, store.append, limit_bytes=100)
    follower.start()
    # When it ends
    threading.Timer(0.05, exited.set).start()
    follower.end_reading("a note")
    # Then nothing is missing, and the whole log was asked for once more and no more often
    assert follower.sent(10)
    assert bytes(store.log) == b"abclast wordsa note"
    assert len(opened) == 2


def test_a_server_that_wants_no_more_is_heard_by_a_reader_in_the_middle_of_a_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a flood that fills the buffer, and a server that stores only its beginning
    monkeypatch.setattr("consumer.attempt.logs._REOPEN_SECONDS", 0.0)
    waiting = threading.Event()
    streams: list[Stream] = []

    def flood() -> Iterator[bytes]:
        for _ in range(BUFFER_BYTES // PIECE_BYTES):
            yield b"x" * PIECE_BYTES
        # The next piece finds the buffer full: its reader waits until the server has been heard.
        waiting.set()
        yield b"x" * PIECE_BYTES

    def open_stream() -> Stream:
        streams.append(Stream(flood()))
        return streams[-1]

    def store_a_little(offset: int, piece: bytes) -> int:
        assert waiting.wait(10)
        return 100

    follower = LogFollower(open_stream, store_a_little, limit_bytes=10**9)
    follower.start()
    # When it says so
    assert waiting.wait(10)
    follower._reader.join(10)
    # Then the reader ends by itself and does not begin anew
    assert not follower._reader.is_alive()
    assert len(streams) == 1
    follower.end_reading()
    assert follower.sent(10)
