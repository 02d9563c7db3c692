"""Slows down whoever tries keys: an address with too many wrong ones has to pause.

The relay asks before it sends a key on, and tells what came of it. A key that was right within the last
minutes passes even then, and the same wrong key again is no new guess: one client with a revoked key, behind
an address that it shares, locks out nobody but itself. All of it is in memory: a restart forgets.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import threading
import time
from collections import OrderedDict
from typing import NoReturn

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
        self._wrong = _RecentKeys()

    def check(self, address: str, credential: str) -> None:
        """Raise ``ProblemError`` (429) where ``address`` has to pause; a key that was right lately passes."""
        place = _place(address)
        own = self._wrong.name_of(place, credential)
        if not self._limiter.test(self._allowed, own):
            self._refuse(own)
        if not self._limiter.test(self._allowed, place) and not self._good.knows(
            self._good.name_of(credential)
        ):
            self._refuse(place)

    def failed(self, address: str, credential: str) -> None:
        """``credential`` was wrong."""
        WRONG_KEYS.inc()
        self._good.forget(self._good.name_of(credential))
        place = _place(address)
        own = self._wrong.name_of(place, credential)
        if not self._wrong.knows(own):
            self._limiter.hit(self._allowed, place)
        self._wrong.remember(own)
        self._limiter.hit(self._allowed, own)

    def succeeded(self, credential: str) -> None:
        """``credential`` was right."""
        self._good.remember(self._good.name_of(credential))

    def _refuse(self, counter: str) -> NoReturn:
        THROTTLED.inc()
        reset = self._limiter.get_window_stats(self._allowed, counter).reset_time
        raise ProblemError(
            ProblemCode.RATE_LIMITED,
            "Too many wrong keys came from this address; wait a minute, and check the key.",
            retry_after=max(1, math.ceil(reset - time.time())),
        )


class _RecentKeys:
    """The credentials of the last minutes, by keyed hashes that mean nothing outside this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._expiry: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def name_of(self, *parts: str) -> str:
        """What stands for a credential, or for one from a certain place."""
        text = "\n".join(parts).encode("utf-8", "replace")
        return hashlib.blake2b(text, key=self._secret).hexdigest()

    def knows(self, name: str) -> bool:
        with self._lock:
            return self._expiry.get(name, 0.0) > time.monotonic()

    def remember(self, name: str) -> None:
        with self._lock:
            self._expiry[name] = time.monotonic() + _REMEMBER_SECONDS
            self._expiry.move_to_end(name)
            if len(self._expiry) > _REMEMBERED_KEYS:
                self._expiry.popitem(last=False)

    def forget(self, name: str) -> None:
        with self._lock:
            self._expiry.pop(name, None)


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
