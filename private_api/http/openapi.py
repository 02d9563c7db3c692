"""The description of the native interface, OpenAPI 3.1, made from the same shapes that the doors use.

Worker routes and the facades are not in it: the first are private, the second belong to their old clients.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from apispec import APISpec
from flask import Blueprint, Response, jsonify
from pydantic import BaseModel

from contracts.names import IDEMPOTENCY_KEY_HEADER, TASK_ID_PATTERN
from contracts.problems import PROBLEM_CONTENT_TYPE
from private_api.http.downloads import REDIRECT_FIELD
from private_api.http.openapi_answers import ANSWERS, LOG, ZIP
from private_api.http.shapes import (
    DeadLetterQuery,
    KeyRequest,
    ModelRegistration,
    ModelSettings,
    PageQuery,
    TaskFields,
    TaskQuery,
)
from private_api.http.uploads import FILE_FIELD

blueprint = Blueprint("openapi", __name__)

_REF = "#/components/schemas/{model}"
_TASK_ID = {
    "name": "task_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
}
_MODEL_ID = {
    "name": "human_readable_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}
_KEY_ID = {"name": "key_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_NODE = {"name": "node_name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_REPEATABLE = {
    "name": IDEMPOTENCY_KEY_HEADER,
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N` holds the answer up to N seconds, 60 at most, until the task has ended.",
    "schema": {"type": "string", "pattern": "^wait=[0-9]{1,4}$"},
}
_RANGE = {"name": "Range", "in": "header", "schema": {"type": "string"}}
_REDIRECT = {
    "name": REDIRECT_FIELD,
    "in": "query",
    "description": "With 1, where people reach the blob store itself, the answer is a 307 to an address there"
    " that works for 15 minutes; anywhere else the zip comes as usual. Send no key to that address, and hold"
    " what comes against the recorded SHA-256.",
    "schema": {"type": "string", "enum": ["0", "1"]},
}
_SENT_ELSEWHERE = {
    "description": "The zip lies at another address, for some minutes; only where `redirect=1` asks for it.",
    "headers": {"Location": {"schema": {"type": "string"}}},
}
_OFFSET = {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 10**17}}
_WAIT = {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 60}}
_BINARY = {"type": "string", "format": "binary"}
_PROBLEM = {
    "description": "What went wrong, as RFC 9457 has it; decide by `code`.",
    "content": {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


@blueprint.get("/openapi.json")
def document() -> Response:
    """The document; it needs no key."""
    return jsonify(_document())


@cache
def _document() -> dict[str, Any]:
    spec = APISpec(
        title="InferenceServer",
        version="1",
        openapi_version="3.1.0",
        info={"description": "Send a zip to a model in a container, get a zip back."},
        security=[{"bearer": []}, {"header": []}, {"basic": []}],
    )
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("header", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    spec.components.security_scheme("basic", {"type": "http", "scheme": "basic"})
    for name, schema in ANSWERS.items():
        spec.components.schema(name, schema)
    for shape in (ModelSettings, ModelRegistration, KeyRequest):
        _add_shape(spec, shape)
    for path, operations in _paths().items():
        spec.path(path, operations=operations)
    described: dict[str, Any] = spec.to_dict()
    return described


def _paths() -> dict[str, dict[str, Any]]:
    task, tasks = "/v1/tasks/{task_id}", "/v1/tasks"
    model, models = "/v1/models/{human_readable_id}", "/v1/models"
    node = "/v1/nodes/{node_name}"
    submit = [*_query(TaskFields), _REPEATABLE, _PREFER]
    return {
        tasks: {
            "post": _operation(
                "Send a zip to a model", "Task", 202, submit, _zip_or_form(TaskFields), also=[200]
            ),
            "put": _operation(
                "Send a zip as the raw body",
                "Task",
                202,
                submit,
                {"application/zip": {"schema": _BINARY}},
                also=[200],
            ),
            "get": _operation("List tasks, newest first", "TaskPage", 200, _query(TaskQuery)),
        },
        task: {
            "get": _operation("Show a task", "Task", 200, [_TASK_ID, _PREFER]),
            "delete": _operation("Remove a task and its data", None, 204, [_TASK_ID]),
        },
        f"{task}/input": {"get": _download("Fetch the zip that was sent", [_TASK_ID, _RANGE, _REDIRECT])},
        f"{task}/output": {
            "get": _download("Fetch the zip that the model made", [_TASK_ID, _PREFER, _RANGE, _REDIRECT])
        },
        f"{task}/logs": {"get": _operation("Read or follow the log", LOG, 200, [_TASK_ID, _OFFSET, _WAIT])},
        f"{task}/cancel": {"post": _operation("Stop a task", "Task", 202, [_TASK_ID])},
        f"{task}/retry": {
            "post": _operation(
                "Run an ended task again, under a new id",
                "Task",
                202,
                [_TASK_ID, _REPEATABLE, _PREFER],
                also=[200],
            )
        },
        models: {
            "post": _operation(
                "Register a model", "SavedModel", 201, [_REPEATABLE], _json_or_form(ModelRegistration)
            ),
            "get": _operation("List models", "ModelPage", 200, _query(PageQuery)),
        },
        model: {
            "get": _operation("Show a model", "Model", 200, [_MODEL_ID]),
            "patch": _operation(
                "Change a model", "SavedModel", 200, [_MODEL_ID], _json_or_form(ModelSettings)
            ),
            "delete": _operation("Delete a model", None, 204, [_MODEL_ID]),
        },
        "/v1/keys": {
            "post": _operation(
                "Make a key",
                "NewKey",
                201,
                [_REPEATABLE],
                {"application/json": {"schema": _ref("KeyRequest")}},
            ),
            "get": _operation("List keys", "KeyPage", 200, _query(PageQuery)),
        },
        "/v1/keys/self": {"get": _operation("Show the key that the request carries", "Key", 200, [])},
        "/v1/keys/{key_id}": {"delete": _operation("Revoke a key", None, 204, [_KEY_ID])},
        "/v1/nodes": {"get": _operation("List nodes", "NodePage", 200, _query(PageQuery))},
        node: {
            "get": _operation("Show a node", "Node", 200, [_NODE]),
            "delete": _operation("Forget a node that is gone", None, 204, [_NODE]),
        },
        f"{node}/drain": {"post": _operation("Have a node take no more tasks", "Node", 200, [_NODE])},
        f"{node}/resume": {"post": _operation("Have a node take tasks again", "Node", 200, [_NODE])},
        "/v1/dead-letters": {
            "get": _operation(
                "Look at the broker's messages that no consumer could read",
                "DeadLetterList",
                200,
                _query(DeadLetterQuery),
            ),
            "delete": _operation("Throw those messages away", "DeadLettersRemoved", 200, []),
        },
    }


def _download(summary: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    operation = _operation(summary, ZIP, 200, parameters, also=[206])
    operation["responses"]["307"] = _SENT_ELSEWHERE
    return operation


def _operation(
    summary: str,
    answer: str | dict[str, Any] | None,
    status: int,
    parameters: list[dict[str, Any]],
    body: dict[str, Any] | None = None,
    *,
    also: list[int] | None = None,
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": summary}
    if isinstance(answer, str):
        good["content"] = {"application/json": {"schema": _ref(answer)}}
    elif answer is not None:
        good["content"] = answer
    responses = {str(code): good for code in [status, *(also or [])]}
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": parameters,
        "responses": {**responses, "4XX": _PROBLEM, "503": _PROBLEM, "507": _PROBLEM},
    }
    if body is not None:
        # A model may be registered, and a task's fields sent, by the query alone.
        operation["requestBody"] = {"content": body, "required": list(body) == ["application/json"]}
    return operation


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _query(shape: type[BaseModel]) -> list[dict[str, Any]]:
    schema = shape.model_json_schema(ref_template=_REF)
    required = set(schema.get("required", ()))
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required and shape is not TaskFields,
            "schema": _inlined(part, schema),
        }
        for name, part in schema["properties"].items()
    ]


def _inlined(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    options = [option for option in part.get("anyOf", [part]) if option.get("type") != "null"]
    option = options[0]
    if "$ref" in option:
        option = schema["$defs"][option["$ref"].rpartition("/")[2]]
    return dict(option)


def _zip_or_form(shape: type[BaseModel]) -> dict[str, Any]:
    return {"application/zip": {"schema": _BINARY}, "multipart/form-data": {"schema": _form(shape)}}


def _json_or_form(shape: type[BaseModel]) -> dict[str, Any]:
    return {
        "application/json": {"schema": _ref(shape.__name__)},
        "multipart/form-data": {"schema": _form(shape)},
    }


def _form(shape: type[BaseModel]) -> dict[str, Any]:
    schema = shape.model_json_schema(ref_template=_REF)
    properties = {name: _inlined(part, schema) for name, part in schema["properties"].items()}
    required = [name for name in schema.get("required", ()) if shape is not TaskFields]
    return {"type": "object", "properties": {**properties, FILE_FIELD: _BINARY}, "required": required}


def _add_shape(spec: APISpec, shape: type[BaseModel]) -> None:
    schema = shape.model_json_schema(ref_template=_REF)
    for name, definition in schema.pop("$defs", {}).items():
        if name not in spec.components.schemas:
            spec.components.schema(name, definition)
    spec.components.schema(shape.__name__, schema)
