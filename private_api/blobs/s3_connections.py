"""HTTP connections to an S3 store: how long each step may take, and what is tried again.

``s3_bucket`` gives them to its client. A store that is away is noticed within the connection's limit, one
that hangs within the limit of a stall; neither holds a request for minutes.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import certifi
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ProtocolError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

_CONNECT_SECONDS = 5.0
# Without a byte going out or coming in for so long, the store is taken for gone. It lies below the time that
# the public API gives us (60 s), so that the client hears our reason.
STALL_SECONDS = 40.0
# What is given to the kernel at once: the stall is measured for each of these.
_SENT_AT_ONCE_BYTES = 256 * 1024


def make_pool(*, size: int, stall_seconds: float, retries: bool = True) -> PoolManager:
    """Connections for ``size`` threads; ``retries`` says whether anything is tried again at all."""
    pool = PoolManager(
        maxsize=size,
        timeout=Timeout(connect=min(_CONNECT_SECONDS, stall_seconds), read=stall_seconds),
        retries=_Retry() if retries else _Retry(total=0),
        cert_reqs="CERT_REQUIRED",
        # The variable that OpenSSL itself reads; a store of one's own often has a CA of one's own.
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    paced = {"stall_seconds": stall_seconds}
    pool.pool_classes_by_scheme = {
        "http": type("_Pool", (HTTPConnectionPool,), {
            "ConnectionCls": type("_Connection", (_Paced, HTTPConnection), paced)
        }),
        "https": type("_TlsPool", (HTTPSConnectionPool,), {
            "ConnectionCls": type("_TlsConnection", (_Paced, HTTPSConnection), paced)
        }),
    }  # fmt: skip
    return pool


def is_stall(error: BaseException | None) -> bool:
    """Whether the store was connected, and then neither took nor sent a byte for the time of a stall."""
    if isinstance(error, ProtocolError):
        # What was raised while sending is inside.
        return any(isinstance(part, TimeoutError) for part in error.args)
    return isinstance(error, ReadTimeoutError | TimeoutError)


class _Retry(Retry):
    """Again where that is safe and quick: a refused or broken connection, a moment's 502 to 504.

    Not after a stall, which would double the wait; nor a POST that may have been heard, because each makes an
    upload of its own or ends one.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(
            **{
                "total": 3, "connect": 2, "read": 1, "status": 2, "redirect": 0, "other": 0,
                "allowed_methods": ["GET", "HEAD", "PUT", "DELETE"],
                "status_forcelist": [502, 503, 504],
                "backoff_factor": 0.2,
                "respect_retry_after_header": False,
                "raise_on_redirect": False,
                "raise_on_status": False,
                **given,
            }
        )  # fmt: skip

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """As urllib3 does it, except that a stall ends the matter."""
        if error is not None and is_stall(error):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _Paced:
    """A connection whose sends have the time of a stall. urllib3 gives them the time to connect, in all."""

    stall_seconds: float
    timeout: Any
    sock: Any

    def request(self, *arguments: Any, **named: Any) -> None:
        """Connect within the time for that; everything after has its own."""
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined]  # Of the class that this is mixed into.
        self.timeout = self.stall_seconds
        super().request(*arguments, **named)  # type: ignore[misc]  # As above.

    def send(self, data: Any) -> None:
        """Hand over large bodies in pieces: Python applies a socket's time-out to a whole ``sendall``."""
        if not isinstance(data, memoryview):
            super().send(data)  # type: ignore[misc]  # As above.
            return
        for offset in range(0, len(data), _SENT_AT_ONCE_BYTES):
            super().send(data[offset : offset + _SENT_AT_ONCE_BYTES])  # type: ignore[misc]  # As above.
