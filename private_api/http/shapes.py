"""What callers may send, field by field: the shapes, their bounds, and what stands where nothing is said."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from contracts.messages import PullPolicy, SandboxProfile
from contracts.names import (
    CLASSIC_MODEL_ID_PATTERN,
    IMAGE_REFERENCE_PATTERN,
    is_image_reference,
    is_model_id,
)
from contracts.states import TaskState
from private_api.decisions import limits
from private_api.store.keys import Role

_M = TypeVar("_M", bound=BaseModel)
_J = TypeVar("_J")

_MIB = 1024**2
_GIB = 1024**3
_MAX_JSON_BYTES = 1024 * 1024
# Over these lies the container's own system; a model that asks for them would not start, or worse, would.
_RESERVED_TOP = {"proc", "sys", "dev", "etc", "bin", "sbin", "lib", "lib64", "usr", "run", "tmp"}


def _without_nul(text: str) -> str:
    # PostgreSQL cannot store NUL, and no name has a use for it.
    if "\x00" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _image_reference(text: str) -> str:
    if not is_image_reference(text):
        raise ValueError("is not an image reference such as 'registry.example.org/group/model:1.2'")
    return text


def _mountpoint(text: str) -> str:
    path = PurePosixPath(text)
    parts = path.parts
    if not text.startswith("/") or len(parts) < 2 or ".." in parts or str(path) != text.rstrip("/"):
        raise ValueError("must be an absolute path inside the container, such as /input")
    if parts[1] in _RESERVED_TOP:
        raise ValueError(f"must not lie in /{parts[1]}")
    return str(path)


def _moment(value: object) -> datetime:
    # Pydantic would take bare numbers too, and moments that fall out of the calendar in UTC.
    try:
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
            moment = datetime.fromisoformat(value).astimezone(UTC)
            if datetime.fromisoformat(value).tzinfo is not None:
                return moment
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time with its zone, such as 2026-01-31T12:00:00Z")


def _object_or_its_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('must be an object such as {"site": "north"}') from None


_Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
_ImageReference = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    AfterValidator(_image_reference),
    Field(json_schema_extra={"pattern": f"^{IMAGE_REFERENCE_PATTERN}$"}),
]
_ModelId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_without_nul),
    # With classic_id; without it no spaces and colons either.
    Field(json_schema_extra={"pattern": f"^{CLASSIC_MODEL_ID_PATTERN}$"}),
]
_Text = Annotated[str, AfterValidator(_without_nul)]
_Mountpoint = Annotated[
    str,
    StringConstraints(max_length=255),
    AfterValidator(_without_nul),
    AfterValidator(_mountpoint),
    Field(json_schema_extra={"pattern": "^/[^/]"}),
]

# For how long data of ended tasks is kept; 0 is for ever.
_RetentionSeconds = Annotated[float, Field(ge=0, le=1000 * 366 * 86400, allow_inf_nan=False)]
# What a node may be given as NODE_LABELS. A form can only say it as text, which is JSON then.
_LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
_LabelValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,63}$")]
_NodeLabels = Annotated[
    dict[_LabelName, _LabelValue], Field(max_length=32), BeforeValidator(_object_or_its_text)
]
# Where null says something: back to the server's own time, or nothing asked of a node any more.
_RESETTABLE_FIELDS = {
    "input_retention_seconds",
    "output_retention_seconds",
    "log_retention_seconds",
    "gpu_memory_bytes",
    "node_labels",
}


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelSettings(_Fields):
    """What a PATCH of a model may change, and what registering may choose; what is omitted stays."""

    container_tag: _ImageReference | None = None
    description: Annotated[_Text, Field(max_length=10_000)] | None = None
    use_gpu: bool | None = None
    enabled: bool | None = None
    pull_policy: PullPolicy | None = None
    profile: SandboxProfile | None = None
    network: bool | None = None
    tmp_exec: bool | None = None
    allow_empty_output: bool | None = None
    input_mountpoint: _Mountpoint | None = None
    output_mountpoint: _Mountpoint | None = None
    model_mountpoint: _Mountpoint | None = None
    time_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    memory_bytes: Annotated[int, Field(ge=16 * _MIB, le=16 * 1024 * _GIB)] | None = None
    cpus: Annotated[float, Field(ge=0.01, le=1024)] | None = None
    pids: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    output_bytes: Annotated[int, Field(ge=1, le=16 * 1024 * _GIB)] | None = None
    output_files: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    log_bytes: Annotated[int, Field(ge=1024, le=_GIB)] | None = None
    shm_bytes: Annotated[int, Field(ge=_MIB, le=1024 * _GIB)] | None = None
    tmp_bytes: Annotated[int, Field(ge=_MIB, le=1024 * _GIB)] | None = None
    gpu_memory_bytes: Annotated[int, Field(ge=_MIB, le=16 * 1024 * _GIB)] | None = None
    node_labels: _NodeLabels | None = None
    input_retention_seconds: _RetentionSeconds | None = None
    output_retention_seconds: _RetentionSeconds | None = None
    log_retention_seconds: _RetentionSeconds | None = None

    def columns(self) -> dict[str, Any]:
        """The given settings by the names that the store has for them, without limits and image."""
        given = self.model_dump(
            mode="json", exclude_none=True, exclude={"container_tag", "human_readable_id", "classic_id"}
        )
        given |= {name: getattr(self, name) for name in _RESETTABLE_FIELDS & self.model_fields_set}
        return {name: value for name, value in given.items() if name not in DEFAULT_LIMITS}

    def limits(self) -> dict[str, Any]:
        """The given limits."""
        given = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in given.items() if name in DEFAULT_LIMITS}


class ModelRegistration(ModelSettings):
    """``POST /v1/models``."""

    human_readable_id: _ModelId
    container_tag: _ImageReference
    classic_id: bool = False

    @model_validator(mode="after")
    def _id_is_usable(self) -> Self:
        if not is_model_id(self.human_readable_id, classic=self.classic_id):
            raise ValueError("human_readable_id must be 1 to 128 characters of A-Z a-z 0-9 . _ -")
        return self


class KeyRequest(_Fields):
    """``POST /v1/keys``."""

    name: Annotated[_Text, StringConstraints(min_length=1, max_length=128)]
    role: Role
    expires_at: _Moment | None = None
    # The models whose tasks a worker key may take; omitted: those of all models.
    models: Annotated[list[_ModelId], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _only_workers_are_bound(self) -> Self:
        if self.models is not None:
            if self.role is not Role.WORKER:
                raise ValueError("models can be said of worker keys only: they bind what a worker may run")
            if len(set(self.models)) != len(self.models):
                raise ValueError("models names a model twice")
        return self


class TaskQuery(_Fields):
    """``GET /v1/tasks``."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,18}$")] | None = None
    state: TaskState | None = None
    model: _Text | None = None
    created_after: _Moment | None = None
    created_before: _Moment | None = None


class PageQuery(_Fields):
    """The other lists."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[_Text, StringConstraints(max_length=128)] = ""


class DeadLetterQuery(_Fields):
    """``GET /v1/dead-letters``."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class TaskFields(_Fields):
    """What comes with a task's zip, as form fields or query parameters."""

    model_human_readable_id: _Text
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0


DEFAULT_LIMITS: dict[str, Any] = limits.DEFAULT_LIMITS.to_json()

DEFAULT_SETTINGS: dict[str, Any] = {
    "description": "",
    "enabled": True,
    "use_gpu": False,
    "pull_policy": PullPolicy.IF_MISSING.value,
    "profile": SandboxProfile.STRICT.value,
    "network": False,
    "tmp_exec": False,
    "allow_empty_output": False,
    "input_mountpoint": "/input",
    "output_mountpoint": "/output",
    "model_mountpoint": "/model",
}
