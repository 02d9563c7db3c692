"""The doors to the broker's dead letters, for admins: look at them, throw them away."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify

from contracts.problems import ProblemCode
from private_api.announcing.connection import BrokerAwayError
from private_api.announcing.dead_letters import DeadLetter, DeadLetterBox
from private_api.http.authentication import allow
from private_api.http.fields import query_fields
from private_api.http.services import services
from private_api.http.shapes import DeadLetterQuery
from private_api.store.keys import Role
from serving.problems import ProblemError

blueprint = Blueprint("dead_letters", __name__)


@blueprint.get("/v1/dead-letters")
@allow(Role.ADMIN)
def listing() -> Response:
    """The oldest messages that no consumer could read."""
    query = query_fields(DeadLetterQuery)
    try:
        letters, count = _box().peek(query.limit)
    except BrokerAwayError as error:
        raise _away(error) from error
    return jsonify({"dead_letters": [_document(letter) for letter in letters], "count": count})


@blueprint.delete("/v1/dead-letters")
@allow(Role.ADMIN)
def purge() -> Response:
    """Throw all of them away."""
    try:
        return jsonify({"removed": _box().purge()})
    except BrokerAwayError as error:
        raise _away(error) from error


def _box() -> DeadLetterBox:
    box = services().dead_letters
    if box is None:
        raise ProblemError(
            ProblemCode.NOT_FOUND, "This server has no broker (BROKER_URL is empty), so nothing dies there."
        )
    return box


def _away(error: BrokerAwayError) -> ProblemError:
    return ProblemError(ProblemCode.UNAVAILABLE, f"The broker is away: {error}.", retry_after=5)


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "received_at": None if letter.received_at is None else _rfc3339(letter.received_at),
        "queue": letter.queue,
        "reason": letter.reason,
        "body": letter.body,
        "body_encoding": letter.body_encoding,
        "truncated": letter.truncated,
    }


def _rfc3339(moment: datetime) -> str:
    # The broker counts whole seconds, and pika gives them in UTC without saying so.
    return moment.replace(tzinfo=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
