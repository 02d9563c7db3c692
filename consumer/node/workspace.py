"""The directories and volumes of one attempt: input, output and progress, each a volume bound to a
directory of ours.

A slot makes one while it is idle and hands it to the next attempt. We fill and read the directories from
our side; the engine shows them to the container. Removal goes by the names alone, so leftovers of an
earlier life go the same way.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from consumer.node.residence import HostPaths
from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import EngineError, RefusedError
from consumer.outside.labels import Owner

_log = logging.getLogger(__name__)

_PARTS = ("input", "output", "progress")
# Models write these as any user; nobody on the node gets there, because the directory above is 0700.
_OPEN_TO_MODELS = 0o777


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One attempt's place on the disk and the names of what shows it to the container."""

    workspace_id: str
    root: Path

    @property
    def input(self) -> Path:
        """What the model finds in /input."""
        return self.root / "input"

    @property
    def output(self) -> Path:
        """What the model writes to /output."""
        return self.root / "output"

    @property
    def progress(self) -> Path:
        """The directory of the progress file."""
        return self.root / "progress"

    @property
    def download(self) -> Path:
        """The input's zip while it is on its way; no container sees it."""
        return self.root / "input.zip"

    @property
    def container_name(self) -> str:
        """The attempt's container."""
        return labels.workspace_name(self.workspace_id)

    def volume(self, part: str) -> str:
        """The volume that shows ``input``, ``output`` or ``progress``."""
        return f"{labels.workspace_name(self.workspace_id)}-{part}"


class Workspaces:
    """All workspaces of one slot, below its ``work`` directory."""

    def __init__(self, engine: Engine, directory: Path, owner: Owner, host_paths: HostPaths) -> None:
        self._engine = engine
        self._directory = directory
        self._owner = owner
        self._host_paths = host_paths
        # Volumes that the engine would not let go, each of which is said once.
        self._kept: set[str] = set()

    def create(self, workspace: Workspace) -> None:
        """Make its empty directories and its volumes, ready to be mounted."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        workspace.root.mkdir(mode=0o700)
        for part in _PARTS:
            path = workspace.root / part
            path.mkdir()
            path.chmod(0o755 if part == "input" else _OPEN_TO_MODELS)
        self.ensure_volumes(workspace)

    def ensure_volumes(self, workspace: Workspace) -> None:
        """Make those of its volumes that are missing; raises ``EngineError``."""
        for part in _PARTS:
            device = self._host_paths.device(workspace.root / part)
            self._engine.create_volume(workspace.volume(part), device, self._labels(workspace))

    def named(self, workspace_id: str) -> Workspace:
        """The one with this id, whether or not it exists."""
        return Workspace(workspace_id=workspace_id, root=self._directory / workspace_id)

    def remove(self, workspace: Workspace) -> bool:
        """Remove its container, volumes and directories, whatever of them exists; raises ``EngineError``.

        False when the engine keeps a volume that no container has: one that was restarted with its containers
        alive loses count of their mounts, and finds them again at its next restart. What is in it goes now.
        """
        self._engine.remove_container(workspace.container_name)
        removed = [self._remove_volume(workspace.volume(part)) for part in _PARTS]
        remove_tree(workspace.root)
        return all(removed)

    def found(self) -> set[str]:
        """The ids of all that exist: as directories, containers or volumes."""
        wanted = self._owner.labels()
        listed = self._engine.list_containers(wanted) + self._engine.list_volumes(wanted)
        ids = {
            item.labels[labels.WORKSPACE]
            for item in listed
            if labels.WORKSPACE in item.labels and labels.is_ours(item.given_name, item.labels, wanted)
        }
        if self._directory.is_dir():
            ids |= {path.name for path in self._directory.iterdir()}
        return {workspace_id for workspace_id in ids if labels.WORKSPACE_ID.fullmatch(workspace_id)}

    def _remove_volume(self, name: str) -> bool:
        try:
            self._engine.remove_volume(name)
        except RefusedError as error:
            if error.status == HTTPStatus.CONFLICT:
                # A container has it still, so nothing of it may go yet.
                raise
            if name not in self._kept:
                self._kept.add(name)
                said = {"action": "volume_kept_by_engine"}
                _log.warning("the engine keeps the volume %s: %s", name, error, extra=said)
            return False
        self._kept.discard(name)
        return True

    def _labels(self, workspace: Workspace) -> dict[str, str]:
        return self._owner.labels() | {
            labels.ROLE: labels.ROLE_MODEL,
            labels.WORKSPACE: workspace.workspace_id,
        }


def remove_tree(root: Path) -> None:
    """Remove a directory that an untrusted program may have filled, without following a link.

    Trees too deep for Python's own removal (it recurses and its paths have a longest length) and
    directories that their owner may not enter are left to ``chmod`` and ``rm``, which have neither limit.
    """
    try:
        shutil.rmtree(root)
    except FileNotFoundError:
        return
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            raise EngineError(f"{root} is still mounted") from error
        path = os.fspath(root)
        subprocess.run(["chmod", "-R", "u+rwX", "--", path], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=False, capture_output=True)
