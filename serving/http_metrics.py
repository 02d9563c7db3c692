"""Counts the requests of a service: how many, how they ended, how long they took, how many bytes they moved.

``bootstrap`` enters with its application; the worker and gunicorn's log with what only they see.
"""

from __future__ import annotations

import re
import time
from typing import Any

from flask import Flask, Response, request
from prometheus_client import Counter, Gauge, Histogram

from serving.request_facts import RequestFacts, facts_of

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CONVERTER = re.compile(r"<[^>]+>")

_REQUESTS = Counter(
    "inferenceserver_http_requests",
    "Requests answered, by route template, method and status; route none: nothing is there.",
    ["route", "method", "status"],
)
_DURATION = Histogram(
    "inferenceserver_http_request_duration_seconds",
    "From a request's arrival, its body included, to the beginning of its answer; held=yes: it was held on"
    " purpose (a long poll).",
    ["route", "method", "held"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
_RECEIVED = Counter(
    "inferenceserver_http_request_bytes", "Bytes of request bodies received.", ["route", "method"]
)
_SENT = Counter("inferenceserver_http_response_bytes", "Bytes of answers' bodies sent.", ["route", "method"])
IN_FLIGHT = Gauge(
    "inferenceserver_http_requests_in_flight",
    "Requests that hold a thread at this moment, held ones and transfers included.",
    multiprocess_mode="livesum",
)
THREADS = Gauge(
    "inferenceserver_http_threads", "Threads that may serve requests.", multiprocess_mode="livesum"
)


def count_requests(app: Flask) -> None:
    """Count every request that reaches ``app``; call it before other hooks are added."""

    @app.before_request
    def _begin() -> None:
        facts = facts_of(request.environ)
        if request.url_rule is not None:
            facts.route = _CONVERTER.sub("{}", request.url_rule.rule)
            facts.task_id = (request.view_args or {}).get("task_id")

    @app.after_request
    def _count(response: Response) -> Response:
        facts = facts_of(request.environ)
        method = known_method(request.method)
        _REQUESTS.labels(facts.route, method, str(response.status_code)).inc()
        held = "yes" if facts.held else "no"
        _DURATION.labels(facts.route, method, held).observe(time.monotonic() - facts.began)
        return response


def count_refusal(status: int) -> None:
    """Count what was refused before it was a request at all."""
    _REQUESTS.labels("none", "none", str(status)).inc()


def count_bytes(environ: dict[str, Any], sent: int) -> RequestFacts:
    """Count the bytes of a request whose answer has been sent; returns what is known of it."""
    facts, method = facts_of(environ), known_method(environ.get("REQUEST_METHOD", ""))
    if facts.received_bytes:
        _RECEIVED.labels(facts.route, method).inc(facts.received_bytes)
    if sent:
        _SENT.labels(facts.route, method).inc(sent)
    return facts


def known_method(method: str) -> str:
    """``method``, or "other" for a word that is none: a client may send any, a label may not be any."""
    return method if method in _METHODS else "other"
