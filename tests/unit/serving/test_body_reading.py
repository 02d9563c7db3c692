"""Bodies through gunicorn's real parser: counted, bounded, and refused where they end early."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn.config import Config

from contracts.problems import ProblemCode
from serving import bodies
from serving import wire as wire_room
from serving.bodies import read_body, read_small_body
from serving.problems import ProblemError
from serving.wire import WireParser, head_is_readable


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, server = socket.socketpair()
    server.settimeout(0.2)
    with client, server:
        yield client, server


def environ_of(
    wire: tuple[socket.socket, socket.socket], head: str, stall_seconds: float = 0.2
) -> dict[str, Any]:
    client, server = wire
    client.sendall(f"PUT / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
    message = next(WireParser(Config(), server, ("127.0.0.1", 1), stall_seconds))
    environ: dict[str, Any] = {"wsgi.input": message.body}
    for name, value in message.headers:
        environ["CONTENT_LENGTH" if name == "CONTENT-LENGTH" else f"HTTP_{name.replace('-', '_')}"] = value
    return environ


def code_of(caught: pytest.ExceptionInfo[ProblemError]) -> ProblemCode:
    return caught.value.code


def test_a_body_with_a_length_is_read_to_it_and_no_further(wire: Any) -> None:
    # given a body with the next request behind it
    environ = environ_of(wire, "Content-Length: 5")
    wire[0].sendall(b"helloGET / HTTP/1.1")

    # when / then
    assert read_small_body(environ) == b"hello"
    assert environ["wsgi.input"].reader.unreader.take_buffered() == b"GET / HTTP/1.1"


def test_a_chunked_body_is_joined_from_small_chunks(wire: Any) -> None:
    # given
    environ = environ_of(wire, "Transfer-Encoding: chunked")
    wire[0].sendall(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")

    # when / then
    assert list(read_body(environ, maximum_bytes=5000)) == [b"x" * 1000]


@pytest.mark.parametrize("sent", [b"", b"hell"])
def test_a_body_shorter_than_its_length_is_incomplete(wire: Any, sent: bytes) -> None:
    # given
    environ = environ_of(wire, "Content-Length: 5")
    wire[0].sendall(sent)
    wire[0].shutdown(socket.SHUT_WR)

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ)
    assert code_of(caught) is ProblemCode.INCOMPLETE_BODY
    assert environ["wsgi.input"].failed


@pytest.mark.parametrize(
    "sent", [b"", b"5", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n"]
)
def test_a_chunked_body_without_its_end_is_incomplete(wire: Any, sent: bytes) -> None:
    # given
    environ = environ_of(wire, "Transfer-Encoding: chunked")
    wire[0].sendall(sent)
    wire[0].shutdown(socket.SHUT_WR)

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ)
    assert code_of(caught) is ProblemCode.INCOMPLETE_BODY


@pytest.mark.parametrize("sent", [b"zz\r\n", b"3\r\nabcdef\r\n", b"-1\r\n", b"1;a=\x01\r\nx\r\n0\r\n\r\n"])
def test_bad_chunks_are_a_bad_request(wire: Any, sent: bytes) -> None:
    # given
    environ = environ_of(wire, "Transfer-Encoding: chunked")
    wire[0].sendall(sent)

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ)
    assert code_of(caught) is ProblemCode.BAD_REQUEST


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_stalled_body_times_out(wire: Any, framing: str) -> None:
    # given
    environ = environ_of(wire, framing)

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ)
    assert code_of(caught) is ProblemCode.REQUEST_TIMED_OUT


@pytest.mark.parametrize(
    ("framing", "unit"), [("Content-Length: 5000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")]
)
def test_a_small_body_that_trickles_has_a_limit_for_all_of_it(wire: Any, framing: str, unit: bytes) -> None:
    # given a client that sends a little all the time
    client, server = wire
    server.settimeout(30)
    environ = environ_of(wire, framing, stall_seconds=30)
    over = threading.Event()

    def trickle() -> None:
        # Ends by itself, so that a reader without a limit is told that the body was cut.
        for _ in range(150):
            if over.wait(0.02):
                return
            client.sendall(unit)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=trickle)
    sender.start()

    # when
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ, maximum_bytes=5000, seconds=0.3)
    over.set()
    sender.join()

    # then
    assert code_of(caught) is ProblemCode.REQUEST_TIMED_OUT
    assert server.gettimeout() == 30


def test_a_slow_senders_chunk_is_handed_on_before_the_next(
    wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(bodies, "_JOINING_SECONDS", 0.0, raising=False)
    environ = environ_of(wire, "Transfer-Encoding: chunked")
    pieces = read_body(environ, maximum_bytes=5000)

    # when / then
    for byte in (b"a", b"b"):
        wire[0].sendall(b"1\r\n" + byte + b"\r\n")
        assert next(pieces) == byte
    wire[0].sendall(b"0\r\n\r\n")
    assert list(pieces) == []


def test_an_unwanted_body_that_does_not_come_soon_is_not_waited_for(
    wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(wire_room, "_DRAIN_SECONDS", 0.1, raising=False)
    client, server = wire
    server.settimeout(60)
    client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n")
    parser = WireParser(Config(), server, ("127.0.0.1", 1), 30)
    next(parser)

    # when / then
    started = time.monotonic()
    assert parser.finish_body(deadline=time.monotonic() + 60) is False
    assert time.monotonic() - started < 30


def test_a_length_over_the_maximum_is_refused_before_a_byte_is_read(wire: Any) -> None:
    # given
    environ = environ_of(wire, "Content-Length: 6")

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_body(environ, maximum_bytes=5)
    assert code_of(caught) is ProblemCode.TOO_LARGE
    assert environ["wsgi.input"].reader.length == 6


def test_a_chunked_body_over_the_maximum_is_refused_while_it_comes(wire: Any) -> None:
    # given
    environ = environ_of(wire, "Transfer-Encoding: chunked")
    wire[0].sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    # when / then
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ, maximum_bytes=1000)
    assert code_of(caught) is ProblemCode.TOO_LARGE


def test_a_client_that_waits_is_asked_for_its_body_once_it_is_wanted(wire: Any) -> None:
    # given
    environ = environ_of(wire, "Content-Length: 2\r\nExpect: 100-continue")
    wire[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        wire[0].recv(100)

    # when the body is wanted and does not come
    with pytest.raises(ProblemError):
        read_small_body(environ)

    # then
    assert wire[0].recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_other_servers_bodies_are_counted_too() -> None:
    environ = {"wsgi.input": io.BytesIO(b"abc"), "CONTENT_LENGTH": "5"}
    with pytest.raises(ProblemError) as caught:
        read_small_body(environ)
    assert code_of(caught) is ProblemCode.INCOMPLETE_BODY


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 30, "\u0663"])
def test_a_length_that_is_no_number_is_a_bad_request(length: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read_body({"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": length}, maximum_bytes=5)
    assert code_of(caught) is ProblemCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("head", "readable"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n", False), (b"GET / HTTP/1.1\r\n\r\n", True), (b"GET /\n", True),
        (b"GET / HTTP/1.1\r", False), (b"", False),
    ],
)  # fmt: skip
def test_a_head_is_readable_when_the_parser_need_not_wait(head: bytes, readable: bool) -> None:
    assert head_is_readable(head) is readable
