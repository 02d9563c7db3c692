"""The relay as a pipe: whole, flat in memory, and never silent about a break."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from public_api_processes import Handler, PublicApi, Upstream, read_answer, wait_until

MIB = 1024 * 1024
OUTPUT = "/v1/tasks/" + "a" * 32 + "/output"
LOGS = "/v1/tasks/" + "a" * 32 + "/logs"


def pieces_of(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield b"x" * MIB


class Sized:
    """Pieces whose number of bytes is known beforehand."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return pieces_of(self._size)


@pytest.mark.parametrize("with_length", [True, False])
def test_a_gigabyte_passes_in_flat_memory(relay: PublicApi, stand_in: Upstream, with_length: bool) -> None:
    # given
    size = 1024 * MIB
    body = Sized(size) if with_length else pieces_of(size)

    # when
    answer = requests.put(f"{relay.url}/v1/tasks?model_human_readable_id=m", data=body, timeout=60)

    # then
    assert answer.status_code == 200
    assert stand_in.last.body_bytes == size
    assert ("content-length" in stand_in.last.headers) == with_length
    assert stand_in.last.complete
    assert relay.peak_bytes() < 200 * MIB


def test_a_gigabyte_comes_back_in_flat_memory(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    size = 1024 * MIB

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        for piece in pieces_of(size):
            handler.wfile.write(piece)

    stand_in.on("GET", OUTPUT, answer)

    # when
    with requests.get(relay.url + OUTPUT, stream=True, timeout=60) as response:
        received = sum(len(piece) for piece in response.iter_content(MIB))

    # then
    assert received == size
    assert relay.peak_bytes() < 200 * MIB


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_that_falls_short_never_looks_whole(
    relay: PublicApi, stand_in: Upstream, chunked: bool
) -> None:
    # given an upstream that breaks off after a megabyte
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        if chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(10 * MIB))
        handler.end_headers()
        handler.wfile.write((b"100000\r\n" if chunked else b"") + b"x" * MIB + b"\r\n")
        handler.cut()

    stand_in.on("GET", OUTPUT, answer)

    # when / then
    with (
        pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)),
        requests.get(relay.url + OUTPUT, stream=True, timeout=20) as response,
    ):
        sum(len(piece) for piece in response.iter_content(MIB))


def test_a_client_of_http_1_0_sees_a_reset_where_an_answer_falls_short(
    relay: PublicApi, stand_in: Upstream
) -> None:
    # given an answer without a length, which for HTTP/1.0 ends with its connection
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n")
        handler.cut()

    stand_in.on("GET", OUTPUT, answer)

    # when
    with relay.connect() as sock:
        sock.sendall(f"GET {OUTPUT} HTTP/1.0\r\nHost: x\r\n\r\n".encode())

        # then
        with pytest.raises(ConnectionResetError):
            read_to_end(sock)


def read_to_end(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def test_an_early_refusal_is_passed_on_before_the_body_is_sent(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    stand_in.on("PUT", "/v1/tasks", lambda handler: handler.answer_json(401, {"code": "unauthenticated"}))

    # when the client waits to be asked for its gigabyte
    status, headers, _ = relay.raw(
        b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n"
    )

    # then
    assert status == 401
    assert headers["connection"] == "close"
    assert stand_in.last.body_bytes == 0


def test_an_answer_in_the_middle_of_an_upload_is_passed_on(relay: PublicApi, stand_in: Upstream) -> None:
    # given an upstream that has seen enough after its first megabyte
    def answer(handler: Handler) -> None:
        handler.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        handler.rfile.read(MIB)
        handler.close_connection = True
        handler.answer_json(413, {"code": "too_large"})
        while handler.rfile.read1(MIB):
            pass

    stand_in.on("PUT", "/v1/tasks", answer)

    # when
    with relay.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        sender = threading.Thread(target=send_until_refused, args=(sock,))
        sender.start()
        status, headers, body = read_answer(sock)
        sock.close()
        sender.join()

    # then
    assert (status, headers["connection"]) == (413, "close")
    assert b"too_large" in body


def send_until_refused(sock: socket.socket) -> None:
    try:
        for _ in range(900):
            sock.sendall(b"x" * MIB)
    except OSError:
        pass


def test_a_client_that_leaves_mid_upload_breaks_the_upload(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    with relay.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * MIB)
        wait_until(lambda: stand_in.seen and stand_in.last.body_bytes == MIB)

    # when it is gone / then
    assert stand_in.last.gone.wait(3)
    assert stand_in.last.broken


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
def test_a_body_that_ends_early_is_refused_and_not_completed(
    relay: PublicApi, stand_in: Upstream, framing: str
) -> None:
    # given
    with relay.connect() as sock:
        start = b"186a0\r\n" if "chunked" in framing else b""
        sock.sendall(f"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + start)
        sock.sendall(b"x" * 100_000)

        # when
        sock.shutdown(socket.SHUT_WR)
        status, _, body = read_answer(sock)

    # then
    assert status == 400
    assert b"incomplete_body" in body
    wait_until(lambda: stand_in.last.broken)
    assert not stand_in.last.complete


def test_a_stalled_body_frees_its_thread_and_is_told_so(relay: PublicApi) -> None:
    # given a client that sends half and stops
    with relay.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\nhalf")

        # when
        status, _, body = read_answer(sock)

    # then
    assert status == 408
    assert b"request_timed_out" in body


def test_a_held_answer_is_given_up_when_its_client_leaves(relay: PublicApi, stand_in: Upstream) -> None:
    # given a log follower
    stand_in.on("GET", LOGS, lambda handler: None if handler.hold_until_gone(20) else handler.cut())
    with relay.connect() as sock:
        sock.sendall(f"GET {LOGS}?offset=0&wait=30 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: stand_in.seen)

    # when it is gone / then
    assert stand_in.last.gone.wait(5)


def test_a_wait_outlives_the_limit_of_short_calls(relay: PublicApi, stand_in: Upstream) -> None:
    # given a task that ends within its wait
    def answer(handler: Handler) -> None:
        handler.hold_until_gone(1.5)
        handler.answer_json(200, {"state": "succeeded"})

    stand_in.on("GET", "/v1/tasks/" + "b" * 32, answer)

    # when
    response = requests.get(f"{relay.url}/v1/tasks/{'b' * 32}", headers={"Prefer": "wait=30"}, timeout=20)

    # then
    assert response.json() == {"state": "succeeded"}
    assert stand_in.last.headers["prefer"] == "wait=30"


def test_a_dead_idle_connection_is_replaced(relay: PublicApi, stand_in: Upstream) -> None:
    # given an upstream that closes after each answer without saying so
    def answer(handler: Handler) -> None:
        handler.answer_json(200, {"items": []})
        handler.close_connection = True

    stand_in.on("GET", "/v1/models", answer)

    # when
    statuses = {requests.get(f"{relay.url}/v1/models", timeout=10).status_code for _ in range(20)}

    # then
    assert statuses == {200}


def test_a_stop_does_not_wait_for_log_followers(start_public_api: Any, upstream: Upstream) -> None:
    # given
    upstream.on("GET", LOGS, lambda handler: None if handler.hold_until_gone(30) else handler.cut())
    with start_public_api() as api, api.connect() as sock:
        sock.sendall(f"GET {LOGS}?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: upstream.seen)

        # when
        api.process.send_signal(signal.SIGTERM)
        status, headers, _ = read_answer(sock)
        api.process.wait(20)

        # then
        assert (status, headers["retry-after"]) == (503, "1")


def test_a_stop_lets_an_upload_in_flight_end(start_public_api: Any, upstream: Upstream) -> None:
    # given
    with start_public_api() as api, api.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        wait_until(lambda: upstream.seen and upstream.last.body_bytes == 100_000)

        # when
        api.process.send_signal(signal.SIGTERM)
        wait_until(lambda: b"Handling signal: term" in api.log.read_bytes())
        sock.sendall(b"x" * 100_000)

        # then
        assert read_answer(sock)[0] == 200
        assert api.process.wait(30) == 0


def test_an_upstream_that_is_away_is_a_503_problem(start_public_api: Any, upstream: Upstream) -> None:
    # given
    with start_public_api() as api:
        upstream.shutdown()
        upstream.server_close()

        # when
        responses = [
            requests.get(f"{api.url}/v1/models", timeout=10),
            requests.put(f"{api.url}/v1/tasks", data=b"x" * MIB, timeout=10),
            requests.get(f"{api.url}/readyz", timeout=10),
            requests.get(f"{api.url}/api/models", timeout=10),
        ]

        # then
        for response in responses:
            assert response.status_code == 503
            assert response.headers["Retry-After"]
            assert response.headers["Content-Type"] == "application/problem+json"
            assert response.json()["code"] == "unavailable"
        assert requests.get(f"{api.url}/healthz", timeout=10).status_code == 200


def test_a_killed_relay_leaves_its_upstream_with_a_broken_body(
    start_public_api: Any, upstream: Upstream
) -> None:
    # given
    with start_public_api() as api, api.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sock.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
        wait_until(lambda: upstream.seen and upstream.last.body_bytes > MIB // 2)

        # when
        os.kill(api.worker_pid(), signal.SIGKILL)

        # then
        assert upstream.last.gone.wait(5)
        assert not upstream.last.complete
        # and another takes its place, which has to be there before it can be told to stop
        assert requests.get(f"{api.url}/healthz", timeout=60).status_code == 200
