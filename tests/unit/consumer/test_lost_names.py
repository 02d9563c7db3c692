"""A server whose name is lost for a while is reached where it was."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from consumer.outside import connections
from consumer.outside.connections import open_pool


class Names:
    """What the resolver knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: dict[str, str] = {}
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)
        monkeypatch.setattr(connections, "_led_to", {})

    def _answer(self, host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".test") and host not in self.known:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._resolve(self.known.get(host, host), *arguments, **options)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port: int) -> int:
    """Over a connection of its own."""
    with open_pool(f"http://server.test:{port}") as pool:
        return pool.request("GET", f"http://server.test:{port}/", timeout=5).status


def test_a_name_that_was_known_may_be_lost(names: Names, port: int) -> None:
    # Given
    names.known["server.test"] = "127.0.0.1"
    assert ask(port) == 204
    # When
    names.known.clear()
    # Then
    assert ask(port) == 204


def test_where_a_name_leads_now_counts_before_where_it_led(names: Names, port: int) -> None:
    # Given a server that was elsewhere before
    connections._led_to["server.test"] = "127.0.0.2"
    names.known["server.test"] = "127.0.0.1"
    # Then
    assert ask(port) == 204
    assert connections._led_to["server.test"] == "127.0.0.1"


def test_a_name_that_was_never_known_is_named(names: Names, port: int) -> None:
    with pytest.raises(urllib3.exceptions.NameResolutionError, match=r"server\.test"):
        ask(port)


def test_where_nobody_is_any_more_the_missing_name_is_the_reason(names: Names, port: int) -> None:
    connections._led_to["server.test"] = "127.0.0.2"
    with pytest.raises(urllib3.exceptions.NameResolutionError, match=r"server\.test"):
        ask(port)
