"""Reads what callers send into its shape, and says precisely what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError

from contracts.messages import MessageError
from contracts.problems import ProblemCode
from serving.bodies import read_small_body
from serving.problems import ProblemError

_M = TypeVar("_M", bound=BaseModel)

_MAX_JSON_BYTES = 1024 * 1024


def read_fields(shape: type[_M], values: dict[str, Any]) -> _M:
    """Check ``values`` against ``shape``; raises a problem that names the first field at fault."""
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        raise ProblemError(ProblemCode.INVALID_FIELD, _first_fault(error)) from error


def received_fields(shape: type[_M], received: Mapping[str, str]) -> _M:
    """What came with an upload, as ``shape``.

    ``ignore_unknown=true`` drops fields that ``shape`` does not have: clients of the 1.x interface send some.
    """
    # A form or a query string can only say "nothing" by an empty value.
    values = {name: value for name, value in received.items() if value}
    if values.pop("ignore_unknown", "") == "true":
        values = {name: value for name, value in values.items() if name in shape.model_fields}
    return read_fields(shape, values)


def query_fields(shape: type[_M]) -> _M:
    """The query string as ``shape``."""
    return read_fields(shape, request.args.to_dict())


def json_object() -> dict[str, Any]:
    """The body as a JSON object; raises a problem when it is none."""
    if request.mimetype != "application/json":
        raise ProblemError(
            ProblemCode.UNSUPPORTED_MEDIA_TYPE, "Send JSON with 'Content-Type: application/json'."
        )
    value = _parse(read_small_body(request.environ, maximum_bytes=_MAX_JSON_BYTES))
    if not isinstance(value, dict):
        raise ProblemError(ProblemCode.INVALID_JSON, "The body must be a JSON object.")
    return value


def json_message(read: Any) -> Any:
    """The body as one of the worker protocol's messages, read by its ``from_json``."""
    try:
        return read(_parse(read_small_body(request.environ, maximum_bytes=_MAX_JSON_BYTES)))
    except MessageError as error:
        raise ProblemError(ProblemCode.INVALID_FIELD, f"{error}.") from error


def milliseconds(moment: datetime | None) -> int | None:
    """A time of the caller's as the store counts times."""
    return None if moment is None else int(moment.astimezone(UTC).timestamp() * 1000)


def _parse(body: bytes) -> object:
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
        # Lone surrogates are valid JSON and no text: they can be neither stored nor sent back.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProblemError(
            ProblemCode.INVALID_JSON, f"The body is not valid JSON: {detail[:200]}."
        ) from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}." if where else f"{message}."
