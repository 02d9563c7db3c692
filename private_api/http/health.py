"""Whether the service lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from private_api.announcing.announcer import BrokerState
from private_api.http.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Each dependency, and whether it answers; 503 when one does not without which nothing goes on.

    Tasks are accepted and run without the broker, only told of less promptly: its absence is shown, no more.
    """
    here = services()
    checks = {"database": _works(here.database.check), "blobs": _works(here.blobs.check)}
    ready = all(state == "ok" for state in checks.values())
    status = "ok" if ready else "unavailable"
    broker = here.announcer.state()
    if broker is not BrokerState.NONE:
        checks["broker"] = broker.value
        status = "degraded" if ready and broker is BrokerState.AWAY else status
    response = jsonify({"status": status, "checks": checks})
    response.status_code = 200 if ready else 503
    if not ready:
        response.headers["Retry-After"] = "1"
    return response


def _works(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - Whatever a driver raises means the same here: it does not work.
        return f"unavailable ({type(error).__name__})"
    return "ok"
