"""Facade 1: the InferenceServer 1.x API, which published clients speak and must go on speaking unchanged.

Each of its requests becomes one native call (the list of models: one for each page). Zips stream through as
they came. Every path works with and without a final slash, and nothing is ever redirected.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response

from contracts.problems import ProblemCode
from public_api.credentials import presented_credential
from public_api.facades import classic_shapes as shapes
from public_api.relay import Passage, Relay, read_whole
from public_api.routes import SEGMENT, Kind, MethodRefusedError, Target, query_fields
from public_api.upstream import Answer
from serving.bodies import declared_length
from serving.problems import ProblemError
from serving.request_facts import facts_of

Environ = dict[str, Any]

# Base addresses that end in a slash make some clients send two.
_TASKS = re.compile(r"/{1,2}api/tasks/?")
_TASK = re.compile(rf"/{{1,2}}api/tasks/(?P<id>{SEGMENT})/?")
# What cannot be an id is an unknown one to 1.x clients, which take a 404 for "not yet".
_NO_TASK = re.compile(r"/{1,2}api/tasks/[^/]+/?")
_MODELS = re.compile(r"/{1,2}api/models/?")
# What each is called in metrics and logs.
_ROUTES = (
    (_TASKS, "/api/tasks"), (_TASK, "/api/tasks/{}"), (_NO_TASK, "/api/tasks/{}"), (_MODELS, "/api/models"),
)  # fmt: skip
_JSON = "application/json"
# 1.x clients send form fields that nobody knows any more.
_TOLERANT = ("ignore_unknown", "true")
# Conditions and waits are not part of 1.x, and its clients would take their answers for something else.
_DROPPED = ("Prefer", "Accept", "If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")
_PAGE_MODELS = 1000
_MAX_PAGES = 100
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class ClassicFacade:
    """See the module. ``anonymous_key`` stands in for clients that send no key; None asks them for one."""

    def __init__(self, relay: Relay, *, anonymous_key: str | None) -> None:
        self._relay = relay
        self._anonymous_key = anonymous_key

    def answer(self, environ: Environ, target: Target) -> Response | None:
        """The answer to a request of 1.x, or None for a path that was none of its."""
        method = environ["REQUEST_METHOD"]
        facts_of(environ).route = next(
            (name for form, name in _ROUTES if form.fullmatch(target.path)), "none"
        )
        if _TASKS.fullmatch(target.path):
            _allow(method, "POST")
            return self._send_task(environ, query_fields(target.query))
        if match := _TASK.fullmatch(target.path):
            _allow(method, "DELETE", "GET")
            return (self._remove_task if method == "DELETE" else self._output)(environ, match["id"])
        if _NO_TASK.fullmatch(target.path):
            _allow(method, "DELETE", "GET")
            return _failure(shapes.UNKNOWN_TASK, "There is no task with this id among your tasks.")
        if _MODELS.fullmatch(target.path):
            _allow(method, "GET", "POST")
            fields = query_fields(target.query)
            return self._register(environ, dict(fields)) if method == "POST" else self._models(environ)
        return None

    def _send_task(self, environ: Environ, fields: list[tuple[str, str]]) -> Response:
        # Other parameters of 1.x (a path to look for in the zip, say) mean nothing here.
        known = [(name, value) for name, value in fields if name == "model_human_readable_id"]
        query = urlencode([*known, _TOLERANT])
        answer = self._ask(environ, "POST", "/v1/tasks", query, Kind.BULK)
        return _translated(answer, lambda task: task["id"])

    def _output(self, environ: Environ, task_id: str) -> Response:
        answer = self._ask(environ, "GET", f"/v1/tasks/{task_id}/output", "", Kind.BULK)
        if answer.status in {200, 206, 416}:
            return self._relay.answer_with(environ, answer)
        return _translated(answer, None)

    def _remove_task(self, environ: Environ, task_id: str) -> Response:
        answer = self._ask(environ, "DELETE", f"/v1/tasks/{task_id}", "", Kind.CONTROL)
        if answer.status == 204:
            read_whole(answer)
            return _json_response(task_id)
        return _translated(answer, None)

    def _models(self, environ: Environ) -> Response:
        models: list[dict[str, Any]] = []
        cursor: str | None = ""
        for _ in range(_MAX_PAGES):
            query = f"limit={_PAGE_MODELS}" + (f"&cursor={quote(cursor, safe='')}" if cursor else "")
            answer = self._ask(environ, "GET", "/v1/models", query, Kind.CONTROL)
            if answer.status != 200:
                return _translated(answer, None)
            page = _json_of(answer)
            # A disabled model could not be used, and 1.x has no word for it.
            models += [shapes.classic_model(model) for model in page["items"] if model.get("enabled", True)]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        return _json_response(models)

    def _register(self, environ: Environ, fields: dict[str, str]) -> Response:
        is_multipart = _media_type(environ) == "multipart/form-data" and declared_length(environ) != 0
        if not is_multipart:
            fields = {**self._form_fields(environ), **fields}
        native = shapes.native_registration(fields)
        with_content = shapes.content_is_announced(fields)
        if with_content and not is_multipart:
            raise _content_missing()
        if is_multipart:
            query = urlencode([*((name, _as_text(value)) for name, value in native.items()), _TOLERANT])
            answer = self._ask(environ, "POST", "/v1/models", query, Kind.BULK, own_key=True)
        else:
            answer = self._ask(
                environ, "POST", "/v1/models", "", Kind.BULK, own_key=True, body=json.dumps(native).encode()
            )
        return _translated(answer, lambda model: self._registered(environ, model, with_content=with_content))

    def _registered(self, environ: Environ, model: Mapping[str, Any], *, with_content: bool) -> Any:
        if with_content and model.get("content") is None:
            # The form held no zip after all. 1.x registered nothing then, so nothing stays.
            path = f"/v1/models/{quote(model['human_readable_id'], safe='')}"
            self._ask(environ, "DELETE", path, "", Kind.CONTROL, own_key=True, body=b"").close()
            raise _content_missing()
        return shapes.classic_model(model)

    def _form_fields(self, environ: Environ) -> dict[str, str]:
        if _media_type(environ) != "application/x-www-form-urlencoded":
            return {}
        return dict(query_fields(self._relay.form_body(environ).decode("utf-8", "replace")))

    def _ask(
        self,
        environ: Environ,
        method: str,
        path: str,
        query: str,
        kind: Kind,
        *,
        own_key: bool = False,
        body: bytes | None = None,
    ) -> Answer:
        stand_in = None if own_key or presented_credential(environ) is not None else self._anonymous_key
        return self._relay.ask(
            environ,
            Passage(
                method=method,
                target=f"{path}?{query}" if query else path,
                query=query,
                kind=kind,
                body=body,
                content_type=_JSON if body else None,
                drop_headers=_DROPPED,
                stand_in_key=stand_in,
            ),
        )


def _allow(method: str, *allowed: str) -> None:
    # No HEAD: its answer has no body, in which alone a failure is told.
    if method not in allowed:
        raise MethodRefusedError(method, list(allowed))


def _translated(answer: Answer, shape: Callable[[Any], Any] | None) -> Response:
    """A native answer in the words of 1.x: ``shape`` of a success's document, or the failure."""
    if answer.status < 300 and shape is not None:
        return _json_response(shape(_json_of(answer)))
    retry_after = next((value for name, value in answer.headers if name.lower() == "retry-after"), None)
    challenge = next((value for name, value in answer.headers if name.lower() == "www-authenticate"), None)
    body = read_whole(answer)
    try:
        problem = json.loads(body) if body else {}
    except ValueError:
        problem = {}
    status = shapes.status_of_problem(problem)
    if status is not None:
        response = _failure(status, shapes.detail_of_problem(status, problem))
    else:
        # Its own status and document: `detail` is a sentence there, which 1.x clients can show too.
        response = Response(body, status=answer.status, content_type="application/problem+json")
    if retry_after is not None:
        response.headers["Retry-After"] = retry_after
    if challenge is not None:
        response.headers["WWW-Authenticate"] = challenge
    return response


def _json_of(answer: Answer) -> Any:
    try:
        return json.loads(read_whole(answer, _MAX_ANSWER_BYTES))
    except ValueError as error:
        raise ProblemError(
            ProblemCode.UNAVAILABLE, "The server behind this address gave an unreadable answer; try again."
        ) from error


def _failure(status: int, detail: str) -> Response:
    return _json_response(
        shapes.failure_document(detail), status=f"{status} {shapes.REASON_OF_STATUS[status]}"
    )


def _json_response(document: Any, *, status: str = "200 OK") -> Response:
    response = Response(json.dumps(document), status=status, content_type=_JSON)
    response.headers["Cache-Control"] = "no-store"
    return response


def _media_type(environ: Environ) -> str:
    return str(environ.get("CONTENT_TYPE", "")).split(";", 1)[0].strip().lower()


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _content_missing() -> ProblemError:
    return ProblemError(
        ProblemCode.MISSING_FILE,
        "model_available=True says that static content comes with the model; send it as zip_file, or leave"
        " model_available out.",
    )
