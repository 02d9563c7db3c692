"""How tasks, models, keys and nodes look as JSON: the one place where their public shape is made."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from contracts.nodes import SlotFacts
from private_api.store.keys import ApiKey
from private_api.store.models import Model
from private_api.store.nodes import Node, Work
from private_api.store.tasks import Task


def rfc3339(milliseconds: int | None) -> str | None:
    """A time as RFC 3339 in UTC with milliseconds."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def task_document(
    task: Task, *, queue_position: int | None = None, waiting_for: str | None = None
) -> dict[str, Any]:
    """A task as every route shows it; position and ``waiting_for`` only where one task is asked for."""
    here = f"/v1/tasks/{task.id}"
    progress = None
    if task.progress_fraction is not None or task.progress_message is not None:
        progress = {"fraction": task.progress_fraction, "message": task.progress_message}
    output = None
    if task.output_key is not None:
        facts = {"size_bytes": task.output_size, "sha256": task.output_sha256}
        output = {**facts, **_keeping(task.output_expires_at, task.output_purged_at)}
    # What people come for decides: the output, or the input of a task that made none.
    expires_at, purged_at = task.output_expires_at, task.output_purged_at
    if task.output_key is None:
        expires_at, purged_at = task.input_expires_at, task.input_purged_at
    return {
        "id": task.id,
        "model": task.model,
        "model_version": task.model_version,
        "image_digest": task.image_digest,
        "state": task.state.value,
        "phase": task.phase.value if task.phase else None,
        "terminal": task.ended,
        "reason_code": task.reason_code.value if task.reason_code else None,
        "reason": task.reason,
        "exit_code": task.exit_code,
        "attempt": task.attempt,
        "priority": task.priority,
        "kind": task.kind.value,
        "cancel_requested": task.cancel_requested,
        "queue_position": queue_position,
        "waiting_for": waiting_for,
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(task.started_at),
        "finished_at": rfc3339(task.finished_at),
        "expires_at": rfc3339(expires_at),
        "durations": task.durations,
        "data_expired": purged_at is not None,
        "request_id": task.request_id,
        "input": {
            "size_bytes": task.input_size,
            "sha256": task.input_sha256,
            **_keeping(task.input_expires_at, task.input_purged_at),
        },
        "output": output,
        "log": {"size_bytes": task.log_size, **_keeping(task.log_expires_at, task.log_purged_at)},
        "progress": progress,
        "urls": {
            "self": here,
            "input": f"{here}/input",
            "output": f"{here}/output",
            "logs": f"{here}/logs",
            "cancel": f"{here}/cancel",
            "retry": f"{here}/retry",
        },
    }


def _keeping(expires_at: int | None, purged_at: int | None) -> dict[str, Any]:
    return {"expires_at": rfc3339(expires_at), "expired": purged_at is not None}


def model_document(model: Model) -> dict[str, Any]:
    """A model with its present version."""
    facts = model.content.facts if model.content else None
    return {
        "id": model.id,
        "uid": model.uid,
        "human_readable_id": model.human_readable_id,
        "description": model.description,
        "container_tag": model.container_tag,
        "pull_policy": model.pull_policy.value,
        "enabled": model.enabled,
        "use_gpu": model.use_gpu,
        "version": model.version,
        "image_id": model.image_id,
        "image_digest": model.image_digest,
        "content": facts.to_json() if facts else None,
        "sandbox": {"profile": model.profile.value, "network": model.network, "tmp_exec": model.tmp_exec},
        "limits": model.limits,
        "gpu_memory_bytes": model.gpu_memory_bytes,
        "node_labels": model.node_labels or {},
        "input_retention_seconds": model.input_retention_seconds,
        "output_retention_seconds": model.output_retention_seconds,
        "log_retention_seconds": model.log_retention_seconds,
        "input_mountpoint": model.input_mountpoint,
        "output_mountpoint": model.output_mountpoint,
        "model_mountpoint": model.model_mountpoint,
        "allow_empty_output": model.allow_empty_output,
        "created_at": rfc3339(model.created_at),
        "updated_at": rfc3339(model.updated_at),
    }


def key_document(key: ApiKey) -> dict[str, Any]:
    """A key without its secret."""
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "models": key.models,
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
        "last_used_at": rfc3339(key.last_used_at),
    }


def node_document(node: Node, work: Mapping[tuple[str, str], Work]) -> dict[str, Any]:
    """A node as an admin sees it, with what runs in its slots."""
    report = node.report
    return {
        "name": node.name,
        "state": node.state.value,
        "draining": node.draining,
        "left": report.leaving,
        "first_heard_at": rfc3339(node.first_heard_at),
        "heard_at": rfc3339(node.heard_at),
        "machine": report.machine.to_json(),
        "disk": report.disk.to_json(),
        "labels": report.labels,
        "slots": [_slot_document(slot, work.get((node.name, slot.name))) for slot in report.slots],
        "gpus": [gpu.to_json() for gpu in report.gpus],
        "images": report.images,
    }


def _slot_document(slot: SlotFacts, work: Work | None) -> dict[str, Any]:
    return {
        "name": slot.name,
        "kind": slot.kind.value,
        "gpu": slot.gpu,
        "task_id": work.task_id if work else None,
        "model": work.model if work else None,
    }
