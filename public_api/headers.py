"""Which headers pass, in either direction: those that are named here, and nothing else. Pure.

What belongs to one connection only, cookies, and whatever claims to say who forwarded a request stay outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from contracts.names import (
    IDEMPOTENCY_KEY_HEADER,
    KEY_ID_HEADER,
    LEASE_TOKEN_HEADER,
    NEXT_OFFSET_HEADER,
    REQUEST_ID_HEADER,
    TASK_ID_PATTERN,
)

Headers = list[tuple[str, str]]
_TASK_LOCATION = re.compile(rf"/v1/tasks/({TASK_ID_PATTERN})")

_REQUEST = (
    "Authorization", "X-API-Key", "Accept", "Prefer", "Range", "If-Match", "If-None-Match",
    "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Content-Encoding", "Content-MD5", "Digest",
    "Content-Digest", "Repr-Digest", "Last-Event-ID", "User-Agent", IDEMPOTENCY_KEY_HEADER,
)  # fmt: skip
_WORKER_REQUEST = (LEASE_TOKEN_HEADER,)
_RESPONSE = frozenset(
    name.lower()
    for name in (
        "Content-Type", "Content-Length", "Content-Range", "Content-Disposition", "Content-Location",
        "Content-Digest", "Repr-Digest", "Digest", "Accept-Ranges", "ETag", "Last-Modified",
        "Cache-Control", "Vary", "Location", "Retry-After", "WWW-Authenticate", "Allow", "Link",
        "Preference-Applied", "Deprecation", "X-Log-Complete", NEXT_OFFSET_HEADER,
    )
)  # fmt: skip


def request_headers(environ: dict[str, Any], *, request_id: str | None, from_worker: bool = False) -> Headers:
    """What the private API is told of the request in ``environ``; not its length, which the sender adds."""
    # The client's own Host goes on, so that addresses in answers are those that the client can reach.
    headers = [("Host", environ.get("HTTP_HOST") or "localhost")]
    for name in _REQUEST + (_WORKER_REQUEST if from_worker else ()):
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is not None:
            headers.append((name, value))
    if environ.get("CONTENT_TYPE"):
        headers.append(("Content-Type", environ["CONTENT_TYPE"]))
    if request_id is not None:
        headers.append((REQUEST_ID_HEADER, request_id))
    return headers


def without(headers: Headers, *names: str) -> Headers:
    """``headers`` less those of these ``names``."""
    dropped = {name.lower() for name in names}
    return [(name, value) for name, value in headers if name.lower() not in dropped]


def key_id_of(received: Iterable[tuple[str, str]]) -> str | None:
    """Whose key the private API found, by the key's id; for our log, not for the client."""
    return next((value for name, value in received if name.lower() == KEY_ID_HEADER.lower()), None)


def made_task(received: Iterable[tuple[str, str]]) -> str | None:
    """The id of the task that an answer says was made, for our log."""
    location = next((value for name, value in received if name.lower() == "location"), "")
    found = _TASK_LOCATION.fullmatch(location)
    return found[1] if found else None


def response_headers(received: Iterable[tuple[str, str]]) -> Headers:
    """What the client is told of an answer."""
    passed = [(name, value) for name, value in received if name.lower() in _RESPONSE]
    if not any(name.lower() == "cache-control" for name, _ in passed):
        # Tasks are private; nothing on the way may keep them.
        passed.append(("Cache-Control", "no-store"))
    return passed
