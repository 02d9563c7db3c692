"""Slows down whoever tries keys: an address with too many wrong ones has to pause.

The relay asks before it sends a key on, and tells what came of it. A key that was right within the last
minutes passes even then, so that one wrong client behind a shared address locks out none of its neighbours.
All of it is in memory: a restart forgets.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import threading
import time
from collections import OrderedDict

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from contracts.problems import ProblemCode
from public_api.metrics import THROTTLED, WRONG_KEYS
from serving.problems import ProblemError

_REMEMBERED_KEYS = 4096
_REMEMBER_SECONDS = 600.0


class FailedKeyThrottle:
    """Counts wrong keys by address (by /64 for IPv6, where one client has that many)."""

    def __init__(self, failures_per_minute: int) -> None:
        self._allowed = RateLimitItemPerMinute(failures_per_minute)
        # Its counters expire. The exact moving window keeps a list for every address that it ever saw.
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._good = _RecentKeys()

    def check(self, address: str, credential: str) -> None:
        """Raise ``ProblemError`` (429) where ``address`` has to pause; a key that was right lately passes."""
        place = _place(address)
        if self._limiter.test(self._allowed, place) or self._good.knows(credential):
            return
        THROTTLED.inc()
        reset = self._limiter.get_window_stats(self._allowed, place).reset_time
        raise ProblemError(
            ProblemCode.RATE_LIMITED,
            "Too many wrong keys came from this address; wait a minute, and check the key.",
            retry_after=max(1, math.ceil(reset - time.time())),
        )

    def failed(self, address: str, credential: str) -> None:
        """``credential`` was wrong."""
        WRONG_KEYS.inc()
        self._good.forget(credential)
        self._limiter.hit(self._allowed, _place(address))

    def succeeded(self, credential: str) -> None:
        """``credential`` was right."""
        self._good.remember(credential)


class _RecentKeys:
    """The credentials that were right lately, as keyed hashes that mean nothing outside this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._expiry: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, credential: str) -> bool:
        with self._lock:
            return self._expiry.get(self._digest(credential), 0.0) > time.monotonic()

    def remember(self, credential: str) -> None:
        digest = self._digest(credential)
        with self._lock:
            self._expiry[digest] = time.monotonic() + _REMEMBER_SECONDS
            self._expiry.move_to_end(digest)
            if len(self._expiry) > _REMEMBERED_KEYS:
                self._expiry.popitem(last=False)

    def forget(self, credential: str) -> None:
        with self._lock:
            self._expiry.pop(self._digest(credential), None)

    def _digest(self, credential: str) -> bytes:
        return hashlib.blake2b(credential.encode("utf-8", "replace"), key=self._secret).digest()


def _place(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address  # A Unix socket has none.
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
