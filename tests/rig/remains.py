"""What an installation has on the engine: to look at after a failure, and to be gone in the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from tests.models.images import engine

INSTALLATION = "org.inferenceserver.installation"
ROLE = "org.inferenceserver.role"
TASK = "org.inferenceserver.task"


def containers(installation: str, **labels: str) -> list[Any]:
    """The containers of ``installation``, in any state, that carry all ``labels`` (by their last part)."""
    wanted = [f"{INSTALLATION}={installation}", *(f"org.inferenceserver.{k}={v}" for k, v in labels.items())]
    return list(engine().containers.list(all=True, filters={"label": wanted}, ignore_removed=True))


def volumes(installation: str) -> list[Any]:
    """The volumes of ``installation``."""
    return list(engine().volumes.list(filters={"label": f"{INSTALLATION}={installation}"}))


def networks(installation: str) -> list[Any]:
    """The networks of ``installation``."""
    return list(engine().networks.list(filters={"label": f"{INSTALLATION}={installation}"}))


def model_containers(installation: str, task_id: str) -> list[Any]:
    """The containers that run, or have run, the model of one task."""
    return containers(installation, role="model", task=task_id)


def attempt_remains(installation: str) -> list[str]:
    """What attempts left behind: all but the holders and the static contents, which stay on purpose."""
    found = containers(installation, role="model") + containers(installation, role="probe")
    return [f"container {c.name} ({c.status})" for c in found] + _volumes_of_attempts(installation)


def all_but_contents(installation: str) -> list[str]:
    """What a server that has stopped should have removed."""
    found = [f"container {c.name} ({c.status})" for c in containers(installation)]
    found += [f"network {n.name}" for n in networks(installation)]
    return found + _volumes_of_attempts(installation)


def _volumes_of_attempts(installation: str) -> list[str]:
    found = volumes(installation)
    return [f"volume {v.name}" for v in found if (v.attrs["Labels"] or {}).get(ROLE) != "content"]


def workspaces(directory: Path) -> list[Path]:
    """The directories of attempts below ``directory``, a consumer's."""
    return [path for slot in directory.glob("slots/*") for path in (slot / "work").glob("*")]


def sweep(installation: str) -> None:
    """Remove whatever the installation has."""
    for container in containers(installation):
        with contextlib.suppress(NotFound, APIError):
            container.remove(force=True, v=True)
    for volume in volumes(installation):
        with contextlib.suppress(NotFound, APIError):
            volume.remove(force=True)
    for network in networks(installation):
        with contextlib.suppress(NotFound, APIError):
            network.remove()


def description(installation: str) -> str:
    """Every container of the installation with its state and the end of its log, for a failed test."""
    lines = []
    for container in containers(installation):
        lines.append(f"--- {container.name}: {container.attrs.get('State')} {container.labels}")
        with contextlib.suppress(NotFound, APIError):
            lines.append(container.logs(tail=20).decode("utf-8", "replace")[-4000:])
    lines += [f"--- volume {volume.name} {volume.attrs.get('Labels')}" for volume in volumes(installation)]
    return "\n".join(lines) or "(nothing on the engine)"
