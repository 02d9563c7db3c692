"""Whether the service lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from private_api.http.services import services

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Each dependency, and whether it answers; 503 when one does not."""
    here = services()
    checks = {"database": _works(here.database.check), "blobs": _works(here.blobs.check)}
    ready = all(state == "ok" for state in checks.values())
    response = jsonify({"status": "ok" if ready else "unavailable", "checks": checks})
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
