"""Puts the public API together: the only place where its parts meet.

``__main__`` calls ``create_app`` in the process that serves; tests call it with settings of their own.
"""

from __future__ import annotations

from flask import Flask, Response, request

from public_api.certificates import Certificates
from public_api.clients import BehindProxies
from public_api.facades.classic import ClassicFacade
from public_api.pages import OwnPages
from public_api.relay import Passage, Relay
from public_api.routes import (
    KEYLESS_PATHS,
    MethodRefusedError,
    find_rule,
    kind_of_method,
    parse_target,
    query_fields,
    task_id_in,
)
from public_api.settings import Settings
from serving.http_metrics import count_requests
from serving.metrics import registry_of_service
from serving.problems import answer_with_problems, problem_response
from serving.request_facts import facts_of
from serving.request_ids import carry_request_ids


def create_app(settings: Settings) -> Flask:
    """The application; its connections to the private API are made when first needed."""
    app = Flask("public_api", static_folder=None)
    answer_with_problems(app)
    app.register_error_handler(MethodRefusedError, _method_refused)
    carry_request_ids(app)
    count_requests(app)
    relay = Relay(settings)
    classic = ClassicFacade(relay, anonymous_key=settings.anonymous_key)
    own = OwnPages(relay, registry_of_service("public_api", Certificates(settings.tls_checks)))

    # Flask's own routing decodes paths, merges slashes and redirects; nothing of that may happen in a relay,
    # so every request is answered before it.
    @app.before_request
    def answer() -> Response:
        return _answer(settings, own, relay, classic)

    @app.after_request
    def harden(response: Response) -> Response:
        # Outputs are what models made of strangers' files: no browser may take one for a page of ours.
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    # A type checker takes the assignment for one to a method.
    app.wsgi_app = BehindProxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign]
    return app


def _answer(settings: Settings, own: OwnPages, relay: Relay, classic: ClassicFacade) -> Response:
    environ = request.environ
    method: str = environ["REQUEST_METHOD"]
    target = parse_target(environ.get("RAW_URI") or environ["PATH_INFO"])
    query_fields(target.query)
    page = own.answer(environ, target.path)
    if page is not None:
        return page
    facts_of(environ).task_id = task_id_in(target.path)
    answered = classic.answer(environ, target)
    if answered is not None:
        return answered
    rule = find_rule(target.path, worker_routes=settings.worker_routes)
    facts_of(environ).route = rule.template
    kind = kind_of_method(method, rule.kinds)
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
