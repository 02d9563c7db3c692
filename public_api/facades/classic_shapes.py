"""What InferenceServer 1.x clients send and expect: fields in, documents and status codes out. Pure.

Their quirks: an error's text lies two ``detail`` deep, four states of a task are statuses of their own,
models are flat objects without nulls, and ``model_available`` says whether static content came along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.problems import ProblemCode
from serving.problems import ProblemError

UNKNOWN_MODEL = 550
NOT_FINISHED = 551
FAILED = 552
OUTPUT_GONE = 553
UNKNOWN_TASK = 554

# A client that polls takes any other status for "not yet", so each end of a task must have its own.
STATUS_OF_CODE = {
    ProblemCode.MODEL_NOT_FOUND: UNKNOWN_MODEL,
    ProblemCode.MODEL_DISABLED: UNKNOWN_MODEL,
    ProblemCode.TASK_NOT_FINISHED: NOT_FINISHED,
    ProblemCode.TASK_FAILED: FAILED,
    ProblemCode.OUTPUT_EXPIRED: OUTPUT_GONE,
    ProblemCode.TASK_NOT_FOUND: UNKNOWN_TASK,
}
REASON_OF_STATUS = {
    UNKNOWN_MODEL: "Unknown model",
    NOT_FINISHED: "Task not finished",
    FAILED: "Task failed",
    OUTPUT_GONE: "Output gone",
    UNKNOWN_TASK: "Unknown task",
}

_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n", ""})
_MODEL_TEXTS = (
    "human_readable_id", "container_tag", "description",
    "input_mountpoint", "output_mountpoint", "model_mountpoint",
)  # fmt: skip


def failure_document(detail: str) -> dict[str, Any]:
    """An error as 1.x wrote it."""
    return {"detail": {"detail": detail}}


def status_of_problem(problem: Mapping[str, Any]) -> int | None:
    """The 1.x status of a native problem; None where it keeps its own."""
    try:
        return STATUS_OF_CODE.get(ProblemCode(str(problem.get("code"))))
    except ValueError:
        return None


def detail_of_problem(status: int, problem: Mapping[str, Any]) -> str:
    """The sentence to show for a native problem that has the 1.x ``status``."""
    if status == NOT_FINISHED:
        # The native one advises a held answer, which 1.x does not have.
        return "The task has not finished yet; ask again in a moment."
    return str(problem.get("detail", ""))


def read_switch(name: str, text: str) -> bool:
    """A boolean as query strings have it: ``True``, ``1``, ``yes`` …; raises ``ProblemError``."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ProblemError(ProblemCode.INVALID_FIELD, f"{name} must be true or false, not {text[:40]!r}.")
    return word in _TRUE


def native_registration(fields: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a native registration for a 1.x one. Fields that neither knows are left out."""
    native: dict[str, Any] = {name: fields[name] for name in _MODEL_TEXTS if fields.get(name)}
    use_gpu = _optional_switch(fields, "use_gpu")
    if use_gpu is not None:
        native["use_gpu"] = use_gpu
    # 1.x ran images as they were built; ids of its time may hold spaces and colons.
    native["classic_id"] = True
    native["profile"] = "compatible"
    return native


def content_is_announced(fields: Mapping[str, str]) -> bool:
    """Whether the client says that static content comes with its model."""
    return _optional_switch(fields, "model_available") or False


def _optional_switch(fields: Mapping[str, str], name: str) -> bool | None:
    text = fields.get(name)
    # What Python's None becomes in an address: the client leaves the choice to us.
    return None if text is None or text.strip().lower() == "none" else read_switch(name, text)


def classic_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A native model as 1.x showed it, nulls left out."""
    shown = {
        "id": model.get("id"),
        "uid": model.get("uid"),
        "human_readable_id": model.get("human_readable_id"),
        "description": model.get("description") or "",
        "container_tag": model.get("container_tag"),
        "use_gpu": bool(model.get("use_gpu")),
        "model_available": model.get("content") is not None,
        "input_mountpoint": model.get("input_mountpoint"),
        "output_mountpoint": model.get("output_mountpoint"),
        "model_mountpoint": model.get("model_mountpoint"),
    }
    return {name: value for name, value in shown.items() if value is not None}
