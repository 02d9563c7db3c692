"""Clients that leave or dawdle never keep a place, nor threads from the others."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import requests
from public_api_processes import Handler, PublicApi, Upstream, wait_until

MIB = 1024 * 1024
OUTPUT = "/v1/tasks/" + "a" * 32 + "/output"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
RESET = struct.pack("ii", 1, 0)


def send_much(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(200 * MIB))
    handler.end_headers()
    try:
        for _ in range(200):
            handler.wfile.write(b"x" * MIB)
    except OSError:
        handler.close_connection = True
        handler.seen.gone.set()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_downloads_that_clients_break_off_give_their_places_back(
    start_public_api: Any, upstream: Upstream, reset: bool
) -> None:
    # given two places, and more clients that leave in the middle
    upstream.on("GET", OUTPUT, send_much)
    with start_public_api(PUBLIC_API_BULK_TRANSFERS="2") as api:
        for number in range(5):
            with api.connect() as sock:
                sock.sendall(f"GET {OUTPUT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert sock.recv(1000).startswith(b"HTTP/1.1 200")
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            assert wait_until(lambda number=number: len(upstream.seen) > number)
            assert upstream.last.gone.wait(10)

        # when
        upstream.on("GET", OUTPUT, lambda handler: handler.answer_bytes(200, b"zip"))

        # then
        assert wait_until(lambda: requests.get(api.url + OUTPUT, timeout=10).status_code == 200)


@contextmanager
def stalled(api: PublicApi, head: str, number: int) -> Iterator[None]:
    """Clients that send a head, and never the body that it announces."""
    with ExitStack() as stack:
        for _ in range(number):
            sock = stack.enter_context(api.connect())
            sock.sendall(f"{head} HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 50\r\n\r\n".encode())
        yield


@pytest.mark.parametrize("head", ["POST /v1/keys", "POST /api/models/"])
def test_stalled_small_bodies_leave_threads_and_places_to_short_calls(
    start_public_api: Any, head: str
) -> None:
    # given more of them than there are threads
    places = {"PUBLIC_API_BULK_TRANSFERS": "1", "PUBLIC_API_WAITING_CALLS": "1"}
    with start_public_api(**places) as api, stalled(api, head, 120):
        # (They are given up after ten seconds.)
        started = time.monotonic()

        # when
        statuses = [
            requests.get(api.url + path, timeout=5).status_code
            for path in ("/healthz", "/v1/models", "/readyz")
        ]

        # then
        assert statuses == [200, 200, 200]
        assert time.monotonic() - started < 9


def test_stalled_small_uploads_leave_a_place_to_others(start_public_api: Any) -> None:
    # given
    with start_public_api(PUBLIC_API_BULK_TRANSFERS="4") as api, stalled(api, "PUT /v1/tasks", 20):

        def upload() -> bool:
            return requests.put(f"{api.url}/v1/tasks", data=b"x" * MIB, timeout=5).status_code == 200

        # when / then, long before those have to give up
        wait_until(upload, 5)
