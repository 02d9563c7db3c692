"""Puts the public API together: the only place where its parts meet.

``__main__`` calls ``create_app`` in the process that serves; tests call it with settings of their own.
"""

from __future__ import annotations

from flask import Flask, Response, request

from public_api import pages
from public_api.facades.classic import ClassicFacade
from public_api.relay import Passage, Relay
from public_api.routes import (
    KEYLESS_PATHS,
    Kind,
    MethodRefusedError,
    find_kind,
    kind_of_method,
    parse_target,
    query_fields,
)
from public_api.settings import Settings
from serving.problems import answer_with_problems, problem_response
from serving.request_ids import carry_request_ids

_OWN = {"GET": Kind.CONTROL}


def create_app(settings: Settings) -> Flask:
    """The application; its connections to the private API are made when first needed."""
    app = Flask("public_api", static_folder=None)
    answer_with_problems(app)
    app.register_error_handler(MethodRefusedError, _method_refused)
    carry_request_ids(app)
    relay = Relay(settings)
    classic = ClassicFacade(relay, anonymous_key=settings.anonymous_key)

    # Flask's own routing decodes paths, merges slashes and redirects; nothing of that may happen in a relay,
    # so every request is answered before it.
    @app.before_request
    def answer() -> Response:
        return _answer(settings, relay, classic)

    @app.after_request
    def harden(response: Response) -> Response:
        # Outputs are what models made of strangers' files: no browser may take one for a page of ours.
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def _answer(settings: Settings, relay: Relay, classic: ClassicFacade) -> Response:
    environ = request.environ
    method: str = environ["REQUEST_METHOD"]
    target = parse_target(environ.get("RAW_URI") or environ["PATH_INFO"])
    query_fields(target.query)
    if target.path in {"/", "/healthz", "/readyz"}:
        kind_of_method(method, _OWN)
        if target.path == "/":
            return pages.root(environ)
        return pages.healthz() if target.path == "/healthz" else pages.readyz(environ, relay)
    answered = classic.answer(environ, target)
    if answered is not None:
        return answered
    kind = find_kind(method, target.path, worker_routes=settings.worker_routes)
    passage = Passage(
        method=method,
        target=target.sent,
        query=target.query,
        kind=kind,
        from_worker=target.path.startswith("/v1/leases"),
        needs_key=target.path not in KEYLESS_PATHS,
    )
    return relay.pass_on(environ, passage)


def _method_refused(error: MethodRefusedError) -> Response:
    response = problem_response(error)
    response.headers["Allow"] = ", ".join(error.allowed)
    return response
