"""The relay itself: one request in, the same request on to the private API, its answer back; streamed.

``bootstrap`` and the facades enter here with a request that the allow-list has passed. The relay bounds what
a request may take; it never looks inside a body and never judges a key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flask import Response

from contracts.problems import ProblemCode
from public_api.admission import Admission
from public_api.credentials import presented_credential, refuse_cross_site
from public_api.exchange import Call, WaitAbandonedError
from public_api.headers import Headers, key_id_of, made_task, request_headers, response_headers, without
from public_api.metrics import UPSTREAM_ERRORS
from public_api.routes import Kind, asked_wait_seconds, query_fields
from public_api.settings import Settings
from public_api.throttle import FailedKeyThrottle
from public_api.upstream import Answer, ConnectionPool, UpstreamError
from serving import stopping
from serving.bodies import declared_length, read_body, read_small_body
from serving.problems import ProblemError
from serving.request_facts import facts_of
from serving.request_ids import current_request_id
from serving.wire import abort_connection, client_is_gone

_log = logging.getLogger(__name__)

MAX_JSON_BYTES = 1024 * 1024
# Bodies up to this size are taken whole before the private API is troubled, and answers before the client is.
_SMALL_BYTES = 64 * 1024
# A short call takes milliseconds; a database that is busy with maintenance may need this.
_CONTROL_SECONDS = 30.0
# A small body may take this long, all of it: whoever sends it has shown no key that was looked at.
_SMALL_BODY_SECONDS = 10.0
# After the last byte of an upload its zip is checked and its model looked up.
_BULK_SECONDS = 120.0
# Added to a wait, so that the private API's own end of it comes first.
_WAIT_MARGIN_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A request that may pass: what to send, in place of what came. ``body`` None sends the client's own."""

    method: str
    target: str
    query: str
    kind: Kind
    from_worker: bool = False
    body: bytes | None = None
    content_type: str | None = None
    # 1.x clients know neither held answers nor other formats.
    drop_headers: tuple[str, ...] = ()
    # Sent for a client without a key of its own.
    stand_in_key: str | None = None
    # Whether the private API judges the key.
    needs_key: bool = True


class Relay:
    """See the module. One for the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admission = Admission(
            bulk=settings.bulk_transfers, wait=settings.waiting_calls, control=settings.control_calls
        )
        self._throttle = FailedKeyThrottle(settings.failed_keys_per_minute)
        self._pools = {
            Kind.CONTROL: ConnectionPool(settings.private_api_url, idle=32),
            Kind.WAIT: ConnectionPool(settings.private_api_url, idle=64),
            Kind.BULK: ConnectionPool(settings.private_api_url, idle=16),
        }

    def pass_on(self, environ: dict[str, Any], passage: Passage) -> Response:
        """The private API's answer to ``passage``, as the answer to the request in ``environ``."""
        return self.answer_with(environ, self.ask(environ, passage))

    def ask(self, environ: dict[str, Any], passage: Passage) -> Answer:
        """Send ``passage`` and return the answer's head; raises ``ProblemError`` where there is none."""
        refuse_cross_site(environ, ambient=passage.stand_in_key is not None)
        is_judged = passage.needs_key and passage.stand_in_key is None
        credential = presented_credential(environ) if is_judged else None
        address = environ.get("REMOTE_ADDR", "")
        if credential is not None:
            self._throttle.check(address, credential)
        answer = self.send_unchecked(environ, passage)
        facts = facts_of(environ)
        facts.key_id = key_id_of(answer.headers)
        facts.task_id = facts.task_id or made_task(answer.headers)
        if credential is not None:
            if answer.status == 401:
                self._throttle.failed(address, credential)
            elif 200 <= answer.status < 400:
                # Other refusals may come before anybody has looked at the key.
                self._throttle.succeeded(credential)
        return answer

    def answer_with(self, environ: dict[str, Any], answer: Answer) -> Response:
        """``answer`` as an answer of ours: whole where it is small, else streamed."""
        headers = response_headers(answer.headers)
        if answer.length is not None and answer.length <= _SMALL_BYTES:
            body: bytes | Iterator[bytes] = read_whole(answer)
        else:
            body = _streamed(environ, answer)
        response = Response(body, status=answer.status)
        # What Flask would add by itself is the private API's to say; its Content-Length holds for HEAD too.
        response.headers.clear()
        for name, value in headers:
            response.headers.add(name, value)
        # Comes even where the client has left; not so with `direct_passthrough`, which skips the closing.
        response.call_on_close(answer.close)
        return response

    def send_unchecked(self, environ: dict[str, Any], passage: Passage) -> Answer:
        """Send ``passage`` without a look at its key, for what needs none; raises as ``ask`` does."""
        fields = query_fields(passage.query)
        prefer = None if "Prefer" in passage.drop_headers else environ.get("HTTP_PREFER")
        wait_seconds = asked_wait_seconds(passage.kind, prefer, fields)
        kind = Kind.WAIT if wait_seconds else passage.kind
        facts_of(environ).held = bool(wait_seconds)
        leave = self._admission.enter(kind)
        try:
            body, length = self._body(environ, passage, kind)
            answer = self._pools[kind].send(
                Call(
                    method=passage.method,
                    target=passage.target,
                    headers=_headers(environ, passage),
                    body=body,
                    length=length,
                    answer_seconds=wait_seconds
                    + (_WAIT_MARGIN_SECONDS if wait_seconds else 0.0)
                    + (_BULK_SECONDS if passage.kind is Kind.BULK else _CONTROL_SECONDS),
                    is_abandoned=_abandonment(environ, passage) if wait_seconds else None,
                )
            )
        except UpstreamError as error:
            leave()
            UPSTREAM_ERRORS.labels(kind.value).inc()
            raise _unavailable(error) from error
        except WaitAbandonedError:
            leave()
            raise ProblemError(ProblemCode.UNAVAILABLE, "The server restarts; ask again.") from None
        except BaseException:
            leave()
            raise
        answer.on_close(leave)
        return answer

    def form_body(self, environ: dict[str, Any]) -> bytes:
        """The whole body of a small form, which is read before it is known what to send on."""
        leave = self._admission.enter(Kind.CONTROL)
        try:
            return self._small_body(environ, Kind.CONTROL, MAX_JSON_BYTES)
        finally:
            leave()

    def _body(
        self, environ: dict[str, Any], passage: Passage, kind: Kind
    ) -> tuple[bytes | Iterator[bytes], int | None]:
        if passage.body is not None:
            return passage.body, None
        length = declared_length(environ)
        if length == 0:
            return b"", None
        if passage.kind is not Kind.BULK or _is_json(environ):
            return self._small_body(environ, kind, MAX_JSON_BYTES), None
        maximum_bytes = self._settings.max_upload_bytes
        if length is not None and length <= _SMALL_BYTES:
            return self._small_body(environ, kind, maximum_bytes), None
        return read_body(environ, maximum_bytes=maximum_bytes), length

    def _small_body(self, environ: dict[str, Any], kind: Kind, maximum_bytes: int) -> bytes:
        with self._admission.receiving(kind):
            return read_small_body(environ, maximum_bytes=maximum_bytes, seconds=_SMALL_BODY_SECONDS)


def read_whole(answer: Answer, maximum_bytes: int = _SMALL_BYTES) -> bytes:
    """The body of a small answer; raises ``ProblemError`` (503) where it falls short."""
    try:
        return answer.read(maximum_bytes)
    except UpstreamError as error:
        raise _unavailable(error) from error


def _streamed(environ: dict[str, Any], answer: Answer) -> Iterator[bytes]:
    try:
        yield from answer.pieces()
    except UpstreamError as error:
        UPSTREAM_ERRORS.labels(Kind.BULK.value).inc()
        said = {"action": "answer_cut_short", "route": facts_of(environ).route}
        _log.warning("answer cut short: %s", error, extra=said)
        # Ending cleanly would make half an answer look like a whole one.
        raise abort_connection(environ, str(error)) from error


def _headers(environ: dict[str, Any], passage: Passage) -> Headers:
    headers = request_headers(environ, request_id=current_request_id(), from_worker=passage.from_worker)
    headers = without(headers, *passage.drop_headers)
    if passage.stand_in_key is not None:
        headers = without(headers, "Authorization", "X-API-Key")
        headers.append(("Authorization", f"Bearer {passage.stand_in_key}"))
    if passage.body is not None:
        headers = without(headers, "Content-Type", "Content-Encoding", "Content-MD5", "Digest")
        if passage.content_type is not None:
            headers.append(("Content-Type", passage.content_type))
    return headers


def _abandonment(environ: dict[str, Any], passage: Passage) -> Callable[[], bool] | None:
    # Giving up on an upload whose answer is held would leave its sender in doubt about what came of it.
    if passage.method not in {"GET", "HEAD"} and passage.kind is not Kind.WAIT:
        return None
    return lambda: stopping.is_set() or client_is_gone(environ)


def _is_json(environ: dict[str, Any]) -> bool:
    content_type = str(environ.get("CONTENT_TYPE", "")).split(";", 1)[0].strip().lower()
    return content_type == "application/json" or content_type.endswith("+json")


def _unavailable(error: UpstreamError) -> ProblemError:
    _log.warning("the private API did not answer: %s", error, extra={"action": "upstream_away"})
    return ProblemError(
        ProblemCode.UNAVAILABLE, "The server behind this address does not answer; try again in a moment.",
        retry_after=2,
    )  # fmt: skip
