"""The connections to the server: kept alive, with a time limit for sending, and TLS that is always verified.

``server.py`` enters for its pool. Where a worker stands outside, its way may lead through an HTTP proxy of
its own network, which sees no more than the name of the server.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import NameResolutionError
from urllib3.util.connection import create_connection

# The longest silence in the middle of sending: a server that stores large outputs pauses for its disk.
SEND_SECONDS = 60.0


# Where each name led last. Engines have been seen to lose the name of a Swarm's service for good, though that
# runs on at its address (github.com/moby/moby/issues/53141).
_led_to: dict[str, str] = {}


class _Connection(urllib3.connection.HTTPConnection):
    """A connection that has a time limit of its own for sending; urllib3 uses that for connecting.

    While a name leads nowhere, it goes where that led before.
    """

    def _new_conn(self) -> socket.socket:
        try:
            connected = super()._new_conn()
        except NameResolutionError as error:
            return self._connect_as_before(error)
        _led_to[self.host] = connected.getpeername()[0]
        return connected

    def _connect_as_before(self, error: NameResolutionError) -> socket.socket:
        if self.host not in _led_to:
            raise error
        try:
            return create_connection(
                (_led_to[self.host], self.port or self.default_port),
                self.timeout,
                socket_options=self.socket_options,
            )
        except OSError:
            # Whatever is at that address now: what is missing is the name.
            raise error from None

    def connect(self) -> None:
        """Connect, then allow the sending that follows its own time."""
        super().connect()
        self.sock.settimeout(SEND_SECONDS)

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        """Begin a request, perhaps on a connection that has waited for another answer before."""
        if self.sock is not None:
            self.sock.settimeout(SEND_SECONDS)
        super().putrequest(*arguments, **options)


class _TlsConnection(_Connection, urllib3.connection.HTTPSConnection):
    """The same with TLS: ``super()`` in the methods above leads on to this one's second parent."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def open_pool(url: str, *, ca: Path | None = None, proxy: str | None = None) -> urllib3.PoolManager:
    """Connections to ``url`` that trust the authorities in ``ca`` only, or else those of the system.

    Raises ``OSError`` and ``ssl.SSLError`` for a file of authorities that cannot be used.
    """
    options: dict[str, Any] = {"maxsize": 8, "retries": False}
    if url.startswith("https:"):
        options["ssl_context"] = tls_context(ca)
    manager = urllib3.PoolManager(**options) if proxy is None else _through(proxy, options)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _through(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    parts = urlsplit(proxy)
    headers = None
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=words)
    port = f":{parts.port}" if parts.port else ""
    return urllib3.ProxyManager(f"{parts.scheme}://{parts.hostname}{port}", proxy_headers=headers, **options)


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, with the name and the chain of the certificate checked; raises as ``open_pool``."""
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
