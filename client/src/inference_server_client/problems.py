"""A refusal as the server (or a proxy before it) puts it, read into an error.

The transport enters with an answer of status 300 or more. Reads a bounded part of the body only.
"""

from __future__ import annotations

import json
from typing import Any

import requests

from inference_server_client.errors import ApiError, KeyRefusedError, NotFoundError
from inference_server_client.retries import parse_retry_after

_LARGEST_PROBLEM_BYTES = 64 * 1024
# What a proxy may answer by itself, without a problem document, and what may pass.
_PASSING = frozenset({408, 425, 429, 502, 503, 504})
_SENTENCES = {
    401: "The server asks for a key.",
    403: "The server refuses this.",
    404: "There is nothing at this address; is it that of an inference server?",
    413: "What was sent is larger than the server, or a proxy before it, accepts.",
    429: "The server asks to come back later.",
    502: "The proxy before the server cannot reach it.",
    503: "The server is not available for a moment.",
    504: "The proxy before the server did not get an answer in time.",
}


def read_refusal(response: requests.Response) -> ApiError:
    """The error that an answer of status 300 or more stands for."""
    status = response.status_code
    problem = _problem_of(response)
    detail = _text(problem, "detail") or _text(problem, "title")
    if detail is None and 300 <= status < 400:
        detail = "The server's address leads elsewhere; give the address itself (https://…, no redirect)."
    kind = ApiError
    if status in {401, 403}:
        kind = KeyRefusedError
    elif status in {404, 410}:
        kind = NotFoundError
    return kind(
        detail or _SENTENCES.get(status) or f"The server answered with status {status} and no reason.",
        code=_text(problem, "code") or f"http_{status}",
        status=status,
        retryable=problem["retryable"] is True if "retryable" in problem else status in _PASSING,
        task_id=_text(problem, "task_id"),
        retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
    )


def read_body(response: requests.Response, limit_bytes: int) -> bytes:
    """Up to ``limit_bytes`` of a body; one that ends before its length raises.

    Asked for more than there is, the HTTP library hands out a broken body's beginning in silence; only the
    read after that complains.
    """
    parts: list[bytes] = []
    left = limit_bytes
    while left and (data := response.raw.read(min(left, 64 * 1024), decode_content=True)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def _problem_of(response: requests.Response) -> dict[str, Any]:
    content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if content_type not in {"application/problem+json", "application/json"}:
        return {}
    try:
        document = json.loads(read_body(response, _LARGEST_PROBLEM_BYTES))
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(problem: dict[str, Any], name: str) -> str | None:
    value = problem.get(name)
    return value if isinstance(value, str) and value else None
