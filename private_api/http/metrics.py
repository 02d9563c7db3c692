"""The door for Prometheus. It asks for no key: it says how much and how long, never what or whose.

Only the private network reaches it; the public API does not relay it.
"""

from __future__ import annotations

from flask import Blueprint, Flask, Response, current_app

from private_api.http.services import Services
from private_api.scrape import Scrape
from serving.metrics import CONTENT_TYPE, exposition, registry_of_service

blueprint = Blueprint("metrics", __name__)
_EXTENSION = "inferenceserver_metrics"


def show_metrics(app: Flask, services: Services) -> None:
    """Let the door of ``app`` show what its ``services`` count, and their state."""
    app.extensions[_EXTENSION] = registry_of_service("private_api", Scrape(services))
    app.register_blueprint(blueprint)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Everything counted, in Prometheus' text format."""
    response = Response(exposition(current_app.extensions[_EXTENSION]), content_type=CONTENT_TYPE)
    response.headers["Cache-Control"] = "no-store"
    return response
