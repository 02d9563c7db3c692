"""The shapes of what the native interface answers, for its OpenAPI document.

``documents`` makes them; a test holds every document against its shape here.
"""

from __future__ import annotations

from typing import Any

from contracts.messages import PullPolicy, SandboxProfile, SlotKind
from contracts.names import NEXT_OFFSET_HEADER
from contracts.problems import ProblemCode
from contracts.reasons import ReasonCode
from contracts.states import Phase, TaskState
from private_api.decisions.placement import NodeState
from private_api.http.shapes import DEFAULT_LIMITS
from private_api.store.keys import Role

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_WHOLE = {"type": "integer"}
_WHOLE_OR_NULL = {"type": ["integer", "null"]}
_FLAG = {"type": "boolean"}
_SECONDS_OR_NULL = {
    "type": ["number", "null"],
    "description": "How long the data of its ended tasks is kept; 0 for ever, null as the server has it.",
}
_TEXTS = {"type": "array", "items": _TEXT}
_TEXTS_BY_NAME = {"type": "object", "additionalProperties": _TEXT}
_TIME = {"type": "string", "format": "date-time"}
_TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _one_of(*values: str, null: bool = False) -> dict[str, Any]:
    return {"enum": [*values, *([None] if null else [])]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _page(name: str) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return _object(items=items, next_cursor=_TEXT_OR_NULL)


_BLOB = _object(size_bytes=_WHOLE, sha256=_TEXT)

# Of each kind of a task's data: until when it is kept (null: for ever, or the task has not ended), and
# whether it is gone.
_KEEPING = {
    "expires_at": {
        **_TIME_OR_NULL,
        "description": "Until when it is kept; null for ever, or while the task has not ended.",
    },
    "expired": {**_FLAG, "description": "Whether its time is over and it is gone: 410 at its address."},
}
_KEPT_BLOB = _object(size_bytes=_WHOLE, sha256=_TEXT, **_KEEPING)

_TASK = _object(
    id=_TEXT,
    model=_TEXT,
    model_version=_WHOLE,
    image_digest=_TEXT_OR_NULL,
    state=_one_of(*TaskState),
    phase=_one_of(*Phase, null=True),
    terminal=_FLAG,
    reason_code=_one_of(*ReasonCode, null=True),
    reason=_TEXT_OR_NULL,
    exit_code=_WHOLE_OR_NULL,
    attempt=_WHOLE,
    priority=_WHOLE,
    kind=_one_of(*SlotKind),
    cancel_requested=_FLAG,
    queue_position=_WHOLE_OR_NULL,
    waiting_for=_TEXT_OR_NULL,
    created_at=_TIME,
    started_at=_TIME_OR_NULL,
    finished_at=_TIME_OR_NULL,
    expires_at={
        **_TIME_OR_NULL,
        "description": "Until when the output is kept, or the input of a task that made no output.",
    },
    durations={"type": "object", "additionalProperties": {"type": "number"}},
    data_expired={**_FLAG, "description": "Whether what `expires_at` speaks of is gone."},
    request_id={**_TEXT_OR_NULL, "description": "The X-Request-Id with which the task was sent."},
    input=_KEPT_BLOB,
    output=_or_null(_KEPT_BLOB),
    log=_object(size_bytes=_WHOLE, **_KEEPING),
    progress=_or_null(_object(fraction={"type": ["number", "null"]}, message=_TEXT_OR_NULL)),
    urls=_object(self=_TEXT, input=_TEXT, output=_TEXT, logs=_TEXT, cancel=_TEXT, retry=_TEXT),
)

_MODEL = _object(
    id=_WHOLE,
    uid=_TEXT,
    human_readable_id=_TEXT,
    description=_TEXT,
    container_tag=_TEXT,
    pull_policy=_one_of(*PullPolicy),
    enabled=_FLAG,
    use_gpu=_FLAG,
    version=_WHOLE,
    image_id=_TEXT_OR_NULL,
    image_digest=_TEXT_OR_NULL,
    content=_or_null(_BLOB),
    sandbox=_object(profile=_one_of(*SandboxProfile), network=_FLAG, tmp_exec=_FLAG),
    limits=_object(**{name: {"type": "number"} for name in DEFAULT_LIMITS}),
    gpu_memory_bytes={**_WHOLE_OR_NULL, "description": "Memory that its GPU must have; null asks nothing."},
    node_labels={**_TEXTS_BY_NAME, "description": "Labels that a node must have to run it."},
    input_retention_seconds=_SECONDS_OR_NULL,
    output_retention_seconds=_SECONDS_OR_NULL,
    log_retention_seconds=_SECONDS_OR_NULL,
    input_mountpoint=_TEXT,
    output_mountpoint=_TEXT,
    model_mountpoint=_TEXT,
    allow_empty_output=_FLAG,
    created_at=_TIME,
    updated_at=_TIME,
)

_KEY = {
    "id": _TEXT,
    "name": _TEXT,
    "role": _one_of(*Role),
    # The only models whose tasks a worker key may take; null: those of all.
    "models": {"type": ["array", "null"], "items": _TEXT},
    "created_at": _TIME,
    "expires_at": _TIME_OR_NULL,
    "revoked_at": _TIME_OR_NULL,
    "last_used_at": _TIME_OR_NULL,
}

_SAVED_MODEL = _object(
    **_MODEL["properties"],
    warnings={**_TEXTS, "description": "What keeps it from being run as things are; mostly nothing does."},
)

_NODE = _object(
    name=_TEXT,
    state=_one_of(*NodeState),
    draining=_FLAG,
    left=_FLAG,
    first_heard_at=_TIME,
    heard_at=_TIME,
    machine=_object(cpus={"type": "number"}, memory_bytes=_WHOLE, architecture=_TEXT, engine_version=_TEXT),
    disk=_object(total_bytes=_WHOLE, free_bytes=_WHOLE, has_room=_FLAG),
    labels=_TEXTS_BY_NAME,
    slots={
        "type": "array",
        "items": _object(
            name=_TEXT,
            kind=_one_of(*SlotKind),
            gpu={**_TEXT_OR_NULL, "description": "The UUID of its GPU."},
            task_id={**_TEXT_OR_NULL, "description": "What it runs now."},
            model=_TEXT_OR_NULL,
        ),
    },
    gpus={"type": "array", "items": _object(uuid=_TEXT, name=_TEXT, memory_bytes=_WHOLE)},
    images={**_TEXTS, "description": "Models' images that its engine has, the most recently used first."},
)

_DEAD_LETTER = _object(
    received_at=_TIME_OR_NULL,
    queue=_TEXT_OR_NULL,
    reason=_TEXT_OR_NULL,
    body=_TEXT,
    body_encoding=_one_of("utf-8", "base64"),
    truncated=_FLAG,
)

_PROBLEM = _object(
    type=_TEXT, title=_TEXT, status=_WHOLE, detail=_TEXT, code=_one_of(*ProblemCode), retryable=_FLAG
)
_PROBLEM["properties"] = {**_PROBLEM["properties"], "task_id": _TEXT}

ANSWERS: dict[str, dict[str, Any]] = {
    "Problem": _PROBLEM,
    "Task": _TASK,
    "TaskPage": _page("Task"),
    "Model": _MODEL,
    "ModelPage": _page("Model"),
    "SavedModel": _SAVED_MODEL,
    "Node": _NODE,
    "NodePage": _page("Node"),
    "Key": _object(**_KEY),
    "NewKey": _object(**_KEY, key=_TEXT),
    "KeyPage": _page("Key"),
    "DeadLetterList": _object(dead_letters={"type": "array", "items": _DEAD_LETTER}, count=_WHOLE),
    "DeadLettersRemoved": _object(removed=_WHOLE),
}

# What is not JSON: zips, and the log, whose next offset stands in the header named here.
ZIP: dict[str, Any] = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
LOG: dict[str, Any] = {
    "text/plain": {
        "schema": {"type": "string", "description": f"Go on from the header {NEXT_OFFSET_HEADER}."}
    }
}
