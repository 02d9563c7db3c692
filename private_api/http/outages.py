"""What a request is answered while the database or the blob store is away: 503 and when to come back."""

from __future__ import annotations

import logging
import threading
import time

from flask import Flask, Response
from sqlalchemy.exc import SQLAlchemyError

from contracts.problems import ProblemCode
from private_api.blobs.store import BlobStoreUnavailableError
from private_api.store.database import is_away, is_full, reason_of
from serving.problems import ProblemError, problem_response

_log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 2
# Hundreds of requests may meet the same outage; one line in a while tells of it.
_SAY_AGAIN_SECONDS = 10.0


def answer_outages(app: Flask) -> None:
    """Turn outages into problem documents; any other error of the database stays a mistake of ours."""
    lines, store_lines = _Lines("database_away"), _Lines("blob_store_away")

    @app.errorhandler(BlobStoreUnavailableError)
    def _store_outage(error: BlobStoreUnavailableError) -> Response:
        store_lines.say("the blob store is away", error)
        return problem_response(
            ProblemError(
                ProblemCode.UNAVAILABLE,
                "The server's blob store does not answer at the moment; try again.",
                retry_after=_RETRY_AFTER_SECONDS,
            )
        )

    @app.errorhandler(SQLAlchemyError)
    def _outage(error: SQLAlchemyError) -> Response:
        if is_full(error):
            lines.say("the database's disk is full", error)
            return problem_response(
                ProblemError(
                    ProblemCode.STORAGE_FULL,
                    "The server's database is full; tell its operator, and try again later.",
                    retry_after=60,
                )
            )
        if is_away(error):
            lines.say("the database is away", error)
            return problem_response(
                ProblemError(
                    ProblemCode.UNAVAILABLE,
                    "The server's database does not answer at the moment, or not in time; try again.",
                    retry_after=_RETRY_AFTER_SECONDS,
                )
            )
        raise error


class _Lines:
    def __init__(self, action: str) -> None:
        self._action = action
        self._lock = threading.Lock()
        self._said_at = float("-inf")

    def say(self, what: str, error: BaseException) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._said_at < _SAY_AGAIN_SECONDS:
                return
            self._said_at = now
        _log.warning("%s: %s", what, reason_of(error), extra={"action": self._action})
