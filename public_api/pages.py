"""What the public API shows at its own addresses: its root, whether it lives and is ready, and its metrics.

The root greets 1.x clients with the JSON that they look for, and people with a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from flask import Response
from prometheus_client import CollectorRegistry

from contracts.problems import ProblemCode
from public_api.relay import Passage, Relay, read_whole
from public_api.routes import Kind, kind_of_method
from serving.metrics import CONTENT_TYPE, exposition
from serving.problems import ProblemError
from serving.request_facts import facts_of

_OWN = {"GET": Kind.CONTROL}
_GREETING = {"message": "Hello world - Welcome to the public API"}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>InferenceServer</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}</style>
<h1>InferenceServer</h1>
<p>Send a zip to a model in a container, get a zip back.</p>
<pre>curl -H "Authorization: Bearer KEY" -T task.zip '/v1/tasks?model_human_readable_id=MODEL'</pre>
<p>The whole interface: <a href="/openapi.json">/openapi.json</a></p>
</html>
"""


class OwnPages:
    """All of them by their paths."""

    def __init__(self, relay: Relay, registry: CollectorRegistry) -> None:
        self._pages: dict[str, Callable[[dict[str, Any]], Response]] = {
            "/": root,
            "/healthz": lambda _environ: healthz(),
            "/readyz": lambda environ: readyz(environ, relay),
            "/metrics": lambda environ: metrics(environ, registry),
        }

    def answer(self, environ: dict[str, Any], path: str) -> Response | None:
        """The page at ``path``, or null for a path that is none of ours; raises ``MethodRefusedError``."""
        page = self._pages.get(path)
        if page is None:
            return None
        facts_of(environ).route = path
        kind_of_method(environ["REQUEST_METHOD"], _OWN)
        return page(environ)


def root(environ: dict[str, Any]) -> Response:
    """The greeting, or the page for a browser."""
    if "text/html" in environ.get("HTTP_ACCEPT", "").lower():
        response = Response(_PAGE, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    else:
        response = _json(_GREETING)
    response.headers["Vary"] = "Accept"
    return response


def healthz() -> Response:
    """This process lives."""
    return _json({"status": "ok"})


def readyz(environ: dict[str, Any], relay: Relay) -> Response:
    """Whether requests can be served: the private API's own answer, which names what is missing."""
    # Asked without the caller's key: readiness is nobody's secret, and no wrong key should count here.
    passage = Passage(method="GET", target="/readyz", query="", kind=Kind.CONTROL,
                      drop_headers=("Authorization", "X-API-Key", "Prefer"))  # fmt: skip
    try:
        answer = relay.send_unchecked(environ, passage)
    except ProblemError as error:
        raise ProblemError(
            error.code, "private_api does not answer.", retry_after=error.retry_after
        ) from error
    if answer.status != 200:
        return relay.answer_with(environ, answer)
    read_whole(answer)
    return _json({"status": "ready", "private_api": "ready"})


def metrics(environ: dict[str, Any], registry: CollectorRegistry) -> Response:
    """What this service has counted, for whoever asks directly; behind a proxy there is nothing here."""
    if facts_of(environ).forwarded:
        raise ProblemError(ProblemCode.NOT_FOUND, "There is nothing at this address.")
    response = Response(exposition(registry), content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response


def _json(document: dict[str, str]) -> Response:
    response = Response(json.dumps(document), content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
