"""The id that follows one request through both services and their logs.

The edge (the public API) makes it, unless the client sent a well-formed one; the private API accepts what the
edge passes on. It is a label for people who read logs: nothing is ever decided by it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator

from flask import Flask, Request, Response, request

from contracts.names import REQUEST_ID_HEADER
from serving.logs import request_id_in_log

# Narrow enough to be harmless in a header, a log line and a file name.
_WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{8,64}")


def current_request_id() -> str | None:
    """The id of the request that this thread is serving, if any."""
    return request_id_in_log.get()


@contextlib.contextmanager
def as_request(request_id: str | None) -> Iterator[None]:
    """Log under ``request_id`` for a while, for work that a request left to another thread."""
    token = request_id_in_log.set(request_id)
    try:
        yield
    finally:
        request_id_in_log.reset(token)


def choose_request_id(offered: str | None) -> str:
    """``offered`` where it is well-formed, else a new one."""
    if offered is not None and _WELL_FORMED.fullmatch(offered):
        return offered
    return secrets.token_hex(16)


def carry_request_ids(app: Flask) -> None:
    """Give every request of ``app`` its id, and name it in the answer."""

    @app.before_request
    def _begin() -> None:
        _begin_request(request)

    @app.after_request
    def _name(response: Response) -> Response:
        request_id = request_id_in_log.get()
        if request_id is not None:
            response.headers[REQUEST_ID_HEADER] = request_id
        return response


def _begin_request(incoming: Request) -> None:
    # The variable is left set when the answer has been made, since the answer's body is streamed after that;
    # the thread's next request overwrites it.
    request_id_in_log.set(choose_request_id(incoming.headers.get(REQUEST_ID_HEADER)))
