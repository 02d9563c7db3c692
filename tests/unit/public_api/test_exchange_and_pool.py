"""One exchange with an upstream that speaks late or in bits, and what is sent again."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from public_api import exchange as exchange_room
from public_api.exchange import Call, exchange
from public_api.upstream import ConnectionPool, UpstreamError
from tests.rig.polling import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def call(method: str = "PUT", body: Any = b"", seconds: float = 5.0) -> Call:
    return Call(method=method, target="/x", headers=[("Host", "x")], body=body, answer_seconds=seconds)


def receive_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


class Far:
    """The other end of a connection, played by ``script`` in a thread."""

    def __init__(self, script: Callable[[socket.socket], None]) -> None:
        near, far = socket.socketpair()
        far.settimeout(10)
        self.connection = http.client.HTTPConnection("x")
        self.connection.sock = near
        self._far = far
        self._script = script
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._far:
            self._script(self._far)

    def end(self) -> None:
        self.connection.close()
        self._thread.join(10)


@pytest.fixture
def play() -> Iterator[Callable[[Callable[[socket.socket], None]], Far]]:
    made: list[Far] = []

    def start(script: Callable[[socket.socket], None]) -> Far:
        made.append(Far(script))
        return made[-1]

    yield start
    for far in made:
        far.end()


@pytest.mark.parametrize(
    "words",
    [[CONTINUE], [CONTINUE[:5], CONTINUE[5:]], [CONTINUE[:20], CONTINUE[20:]], [CONTINUE, EARLY_HINTS]],
    ids=["whole", "within the version", "within the reason", "two"],
)
def test_a_late_interim_answer_does_not_end_an_upload(
    play: Any, monkeypatch: pytest.MonkeyPatch, words: list[bytes]
) -> None:
    # given an upstream that asks for the body when it is already being sent
    monkeypatch.setattr(exchange_room, "_EXPECT_SECONDS", 0.05)
    received: list[bytes] = []
    said = threading.Event()

    def script(sock: socket.socket) -> None:
        head = receive_until(sock, b"5\r\nfirst\r\n")
        for word in words:
            sock.sendall(word)
        said.set()
        received.append(head + receive_until(sock, b"0\r\n\r\n"))
        sock.sendall(OK)

    def body() -> Iterator[bytes]:
        yield b"first"
        assert said.wait(5)
        yield b"second"

    # when
    response, early = exchange(play(script).connection, call(body=body()))

    # then
    assert (response.status, early) == (200, False)
    assert received[0].endswith(b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n")


def test_an_interim_answer_after_the_whole_body_is_not_the_answer(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(exchange_room, "_EXPECT_SECONDS", 0.05)

    def script(sock: socket.socket) -> None:
        receive_until(sock, b"0\r\n\r\n")
        sock.sendall(EARLY_HINTS + OK)

    # when
    response, early = exchange(play(script).connection, call(body=iter([b"all"])))

    # then
    assert (response.status, early) == (200, False)


def test_an_answer_in_the_middle_of_a_body_is_early(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(exchange_room, "_EXPECT_SECONDS", 0.05)
    said = threading.Event()

    def script(sock: socket.socket) -> None:
        receive_until(sock, b"5\r\nfirst\r\n")
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        said.set()
        receive_until(sock, b"never")

    def body() -> Iterator[bytes]:
        yield b"first"
        assert said.wait(5)
        yield b"second"

    # when
    response, early = exchange(play(script).connection, call(body=body()))

    # then
    assert (response.status, early) == (413, True)


class Listener:
    """An upstream that treats its connections as ``scripts`` say, one after the other."""

    def __init__(self, *scripts: Callable[[socket.socket], None]) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._sock.settimeout(5)
        self.requests = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(scripts,))
        self._thread.start()
        self.pool = ConnectionPool(f"http://127.0.0.1:{self._sock.getsockname()[1]}", idle=2)

    def _run(self, scripts: tuple[Callable[[socket.socket], None], ...]) -> None:
        with self._sock:
            for script in scripts:
                try:
                    connection, _ = self._sock.accept()
                except TimeoutError:
                    return
                with connection:
                    connection.settimeout(10)
                    script(connection)

    def answer(self, sock: socket.socket) -> None:
        receive_until(sock, b"\r\n\r\n")
        self.requests += 1
        sock.sendall(OK)

    def hang_up(self, sock: socket.socket) -> None:
        receive_until(sock, b"\r\n\r\n")
        self.requests += 1

    def hang(self, sock: socket.socket) -> None:
        receive_until(sock, b"\r\n\r\n")
        self.requests += 1
        self._over.wait(10)

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        while idle := self.pool._take_idle():
            idle.close()


def listening(*scripts: str) -> Listener:
    def on_one(sock: socket.socket) -> None:
        getattr(listener, scripts[0])(sock)
        getattr(listener, scripts[1])(sock)

    def on_next(sock: socket.socket) -> None:
        listener.answer(sock)

    listener = Listener(on_one, on_next) if scripts[-1] == "answer" else Listener(on_one)
    assert listener.pool.send(call("GET")).read(10) == b"ok"
    return listener


def test_a_get_is_sent_again_where_the_idle_connection_was_dead() -> None:
    with closing(listening("answer", "hang_up", "answer")) as listener:
        assert listener.pool.send(call("GET")).read(10) == b"ok"
        assert listener.requests == 3


def test_a_get_is_not_sent_again_after_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(listening("answer", "hang")) as listener:
        monkeypatch.setattr(listener.pool, "_connect", lambda: pytest.fail("a second connection was made"))
        with pytest.raises(UpstreamError, match="does not respond"):
            listener.pool.send(call("GET", seconds=0.2))
        eventually(lambda: listener.requests == 2, 5, "the request has been heard")


def test_a_body_that_is_used_up_is_not_sent_again() -> None:
    with closing(listening("answer", "hang_up")) as listener:
        pieces = iter([b"a", b"b"])
        with pytest.raises(UpstreamError, match="ClosedUnanswered"):
            listener.pool.send(call("GET", body=pieces, seconds=1))
        assert listener.requests == 2
