"""Errors as RFC 9457 problem documents: one exception to raise, one place that turns errors into answers.

Whatever a handler raises, and whatever Flask itself refuses, leaves as ``application/problem+json``.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from contracts.problems import PROBLEM_CONTENT_TYPE, PROBLEMS, ProblemCode

_log = logging.getLogger(__name__)

# What Flask and Werkzeug refuse by themselves, in our words.
_CODE_OF_STATUS = {
    400: ProblemCode.BAD_REQUEST,
    401: ProblemCode.UNAUTHENTICATED,
    403: ProblemCode.FORBIDDEN,
    404: ProblemCode.NOT_FOUND,
    405: ProblemCode.METHOD_NOT_ALLOWED,
    408: ProblemCode.REQUEST_TIMED_OUT,
    413: ProblemCode.TOO_LARGE,
    415: ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    416: ProblemCode.RANGE_NOT_SATISFIABLE,
    429: ProblemCode.RATE_LIMITED,
    503: ProblemCode.UNAVAILABLE,
}


class ProblemError(Exception):
    """The request cannot be answered as asked; ``detail`` says what to do about it."""

    def __init__(
        self,
        code: ProblemCode,
        detail: str,
        *,
        task_id: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.task_id = task_id
        self.retry_after = retry_after


def problem_document(code: ProblemCode, detail: str, *, task_id: str | None = None) -> dict[str, Any]:
    """The JSON object of a problem, as RFC 9457 and our extensions have it."""
    problem = PROBLEMS[code]
    document: dict[str, Any] = {
        "type": f"urn:inferenceserver:problem:{code.value}",
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "code": code.value,
        "retryable": problem.retryable,
    }
    if task_id is not None:
        document["task_id"] = task_id
    return document


def problem_response(error: ProblemError) -> Response:
    """The whole answer for ``error``: status, headers and body."""
    document = problem_document(error.code, error.detail, task_id=error.task_id)
    response = Response(json.dumps(document), status=document["status"], content_type=PROBLEM_CONTENT_TYPE)
    retry_after = error.retry_after
    if retry_after is None and document["status"] in {429, 503}:
        retry_after = 1
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if error.code is ProblemCode.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = 'Basic realm="InferenceServer", Bearer'
    return response


def answer_with_problems(app: Flask) -> None:
    """Make every error of ``app`` leave as a problem document."""
    app.register_error_handler(ProblemError, problem_response)
    app.register_error_handler(HTTPException, _refused_by_framework)
    app.register_error_handler(Exception, _mistake_of_ours)


def _refused_by_framework(error: HTTPException) -> Response:
    code = _CODE_OF_STATUS.get(error.code or 500, ProblemCode.BAD_REQUEST)
    if (error.code or 500) >= 500 and code is ProblemCode.BAD_REQUEST:
        code = ProblemCode.INTERNAL_ERROR
    response = problem_response(ProblemError(code, error.description or PROBLEMS[code].title))
    valid_methods = getattr(error, "valid_methods", None)
    length = getattr(error, "length", None)
    if code is ProblemCode.RANGE_NOT_SATISFIABLE and length is not None:
        response.headers["Content-Range"] = f"bytes */{length}"
    if valid_methods:
        response.headers["Allow"] = ", ".join(sorted(valid_methods))
    return response


def _mistake_of_ours(error: Exception) -> Response:
    _log.exception("unhandled error", exc_info=error)
    return problem_response(
        ProblemError(ProblemCode.INTERNAL_ERROR, "Something went wrong on the server; its log says what.")
    )
