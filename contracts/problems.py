"""The error codes of the HTTP interface: each with its status, its title and whether to try again.

Answers carry them as RFC 9457 ``application/problem+json``; clients decide by ``code`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROBLEM_CONTENT_TYPE = "application/problem+json"


class ProblemCode(StrEnum):
    """Stable, machine-readable names of what went wrong with a request."""

    BAD_REQUEST = "bad_request"
    INVALID_JSON = "invalid_json"
    INVALID_FIELD = "invalid_field"
    MISSING_FILE = "missing_file"
    INPUT_INVALID = "input_invalid"
    INCOMPLETE_BODY = "incomplete_body"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    RANGE_NOT_SATISFIABLE = "range_not_satisfiable"
    REQUEST_TIMED_OUT = "request_timed_out"
    URI_TOO_LONG = "uri_too_long"
    HEADERS_TOO_LARGE = "headers_too_large"

    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CROSS_SITE_REFUSED = "cross_site_refused"
    RATE_LIMITED = "rate_limited"

    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TASK_NOT_FOUND = "task_not_found"
    MODEL_NOT_FOUND = "model_not_found"
    KEY_NOT_FOUND = "key_not_found"
    NODE_NOT_FOUND = "node_not_found"

    MODEL_EXISTS = "model_exists"
    MODEL_DISABLED = "model_disabled"
    MODEL_IN_USE = "model_in_use"
    TASK_NOT_FINISHED = "task_not_finished"
    TASK_FAILED = "task_failed"
    TASK_FINISHED = "task_finished"
    INPUT_EXPIRED = "input_expired"
    OUTPUT_EXPIRED = "output_expired"
    LOG_EXPIRED = "log_expired"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    STALE_LEASE = "stale_lease"
    NODE_NAME_TAKEN = "node_name_taken"
    NODE_DRAINING = "node_draining"
    NODE_IN_USE = "node_in_use"

    STORAGE_FULL = "storage_full"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True)
class Problem:
    """What a code always means: HTTP status, title for people, whether the same request may succeed later."""

    status: int
    title: str
    retryable: bool = False


PROBLEMS: dict[ProblemCode, Problem] = {
    ProblemCode.BAD_REQUEST: Problem(400, "The request cannot be understood"),
    ProblemCode.INVALID_JSON: Problem(400, "The body is not valid JSON"),
    ProblemCode.INVALID_FIELD: Problem(422, "A field is missing, unknown or has a wrong value"),
    ProblemCode.MISSING_FILE: Problem(422, "The zip file is missing or empty"),
    ProblemCode.INPUT_INVALID: Problem(422, "The zip file cannot be accepted"),
    ProblemCode.INCOMPLETE_BODY: Problem(400, "The body ended early", retryable=True),
    ProblemCode.CHECKSUM_MISMATCH: Problem(422, "The body does not match its checksum", retryable=True),
    ProblemCode.TOO_LARGE: Problem(413, "The body is too large"),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: Problem(415, "This content type is not accepted here"),
    ProblemCode.RANGE_NOT_SATISFIABLE: Problem(416, "The requested range lies outside the data"),
    ProblemCode.REQUEST_TIMED_OUT: Problem(408, "The body stopped arriving", retryable=True),
    ProblemCode.URI_TOO_LONG: Problem(414, "The address is too long"),
    ProblemCode.HEADERS_TOO_LARGE: Problem(431, "The headers are too large"),
    ProblemCode.UNAUTHENTICATED: Problem(401, "A valid key is needed"),
    ProblemCode.FORBIDDEN: Problem(403, "This key may not do that"),
    ProblemCode.CROSS_SITE_REFUSED: Problem(403, "Refused for a request from another site"),
    ProblemCode.RATE_LIMITED: Problem(429, "Too many requests", retryable=True),
    ProblemCode.NOT_FOUND: Problem(404, "There is nothing here"),
    ProblemCode.METHOD_NOT_ALLOWED: Problem(405, "This method is not allowed here"),
    ProblemCode.TASK_NOT_FOUND: Problem(404, "There is no such task"),
    ProblemCode.MODEL_NOT_FOUND: Problem(404, "There is no such model"),
    ProblemCode.KEY_NOT_FOUND: Problem(404, "There is no such key"),
    ProblemCode.NODE_NOT_FOUND: Problem(404, "There is no such node"),
    ProblemCode.MODEL_EXISTS: Problem(409, "A model with this id exists already"),
    ProblemCode.MODEL_DISABLED: Problem(409, "The model is disabled"),
    ProblemCode.MODEL_IN_USE: Problem(409, "Tasks of this model have not ended yet", retryable=True),
    ProblemCode.TASK_NOT_FINISHED: Problem(409, "The task has not finished yet", retryable=True),
    ProblemCode.TASK_FAILED: Problem(409, "The task did not succeed; it has no output"),
    ProblemCode.TASK_FINISHED: Problem(409, "The task has already ended"),
    ProblemCode.INPUT_EXPIRED: Problem(410, "The input is past its retention and gone"),
    ProblemCode.OUTPUT_EXPIRED: Problem(410, "The output is past its retention and gone"),
    ProblemCode.LOG_EXPIRED: Problem(410, "The log is past its retention and gone"),
    ProblemCode.IDEMPOTENCY_CONFLICT: Problem(409, "This Idempotency-Key was used for something else"),
    ProblemCode.STALE_LEASE: Problem(409, "This lease is over; another word about it changes nothing"),
    ProblemCode.NODE_NAME_TAKEN: Problem(409, "Another node has this name"),
    ProblemCode.NODE_DRAINING: Problem(409, "This node takes no tasks now"),
    ProblemCode.NODE_IN_USE: Problem(409, "This node is still heard of"),
    ProblemCode.STORAGE_FULL: Problem(507, "The server has no room for this", retryable=True),
    ProblemCode.UNAVAILABLE: Problem(503, "The service is not available for a moment", retryable=True),
    ProblemCode.INTERNAL_ERROR: Problem(500, "The server made a mistake", retryable=True),
}
