"""Where our directory lies on the engine's machine: under the same path, or, when we live in a container,
where the volume lies that we have it from.

``bootstrap`` enters once at start. The engine shows models directories of its own machine, so every path that
it is given goes through ``HostPaths``. Which container we are is guessed from what the kernel tells and then
proven: the engine must show, in that container, a file that only we can have written.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from consumer.outside.engine import Engine, Mount
from consumer.outside.errors import NotFoundError, RefusedError, SettingsError

_log = logging.getLogger(__name__)

# Every engine mounts these files of the container's own directory, under version 1 and 2 of control groups
# and whatever the host name is: `… /var/lib/docker/containers/ID/resolv.conf /etc/resolv.conf …`.
_OWN_FILES = {"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# Engines leave one of these in each container.
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
# A tmpfs has no place on the engine's machine that another container could be shown.
_SHARED_KINDS = {"bind", "volume"}


@dataclass(frozen=True, kw_only=True)
class HostPaths:
    """Our directory as we see it, and as the engine does."""

    ours: Path
    on_host: PurePosixPath

    @classmethod
    def same(cls, directory: Path) -> HostPaths:
        """Where the engine calls everything what we call it."""
        return cls(ours=directory, on_host=PurePosixPath(directory))

    def device(self, path: Path) -> str:
        """What the engine calls ``path``; raises ``ValueError`` for one that is not in our directory."""
        return str(self.on_host / path.relative_to(self.ours))


def find_on_host(engine: Engine, directory: Path, process: Path = Path("/proc/self")) -> PurePosixPath:
    """Where ``directory``, which exists, lies on the engine's machine.

    The same path where we are in no container of this engine. Raises ``SettingsError`` where we are in one
    and have the directory from nowhere, and ``EngineError``.
    """
    homeless = False
    certain, guessed = _candidates(process)
    for candidate in certain + guessed:
        found = engine.find_container(candidate)
        if found is None or not found.running:
            continue
        on_host = place_on_host(found.mounts, directory)
        if on_host is None:
            homeless |= candidate in certain
        elif _is_ours(engine, found.container_id, directory):
            said = {"action": "own_container_found"}
            _log.info("in container %s; our directory is %s", found.container_id[:12], on_host, extra=said)
            return on_host
    if homeless:
        raise SettingsError(
            f"CONSUMER_DIRECTORY: {directory} lies in this container's own file system, of which no model "
            f"can be shown anything: mount a named volume (or a directory of the machine) at {directory}."
        )
    return PurePosixPath(directory)


def own_image(engine: Engine, directory: Path, process: Path = Path("/proc/self")) -> str | None:
    """The id of the image that we are a container of; None where we are in no container of this engine.

    Raises ``EngineError``.
    """
    certain, guessed = _candidates(process)
    for candidate in certain + guessed:
        found = engine.find_container(candidate)
        if found is not None and found.running and _is_ours(engine, found.container_id, directory):
            return found.image_id
    return None


def _candidates(process: Path) -> tuple[list[str], list[str]]:
    """The containers that we may be: by what the kernel tells, and by our host name."""
    certain = ids_of_kernel(_text(process / "mountinfo"), _text(process / "cgroup"))
    # Another container may have our host name for its own name: it is only tried where we are in one at all.
    return certain, [socket.gethostname()] if any(mark.exists() for mark in _MARKS) else []


def ids_of_kernel(mountinfo: str, cgroup: str) -> list[str]:
    """The ids of containers in ``/proc/self/mountinfo`` and ``/proc/self/cgroup``, the surest first."""
    found: list[str] = []
    for line in mountinfo.splitlines():
        fields = line.split()
        # Source of the layout: proc(5). The fourth field is a path within its file system, the fifth is where
        # that is mounted.
        if len(fields) > 5 and fields[4] in _OWN_FILES:
            found += _CONTAINER_ID.findall(fields[3])
    for line in cgroup.splitlines():
        # `5:memory:/docker/ID`, or under systemd `0::/system.slice/docker-ID.scope`; the last is innermost.
        found += _CONTAINER_ID.findall(line)[-1:]
    return list(dict.fromkeys(found))


def place_on_host(mounts: Sequence[Mount], directory: Path) -> PurePosixPath | None:
    """Where ``directory`` of a container with these mounts lies on the engine's machine; None if nowhere.

    Of mounts inside one another the innermost counts.
    """
    above = [mount for mount in mounts if directory.is_relative_to(mount.destination)]
    if not above:
        return None
    nearest = max(above, key=lambda mount: len(PurePosixPath(mount.destination).parts))
    if nearest.kind not in _SHARED_KINDS or not nearest.source:
        return None
    return PurePosixPath(nearest.source) / directory.relative_to(nearest.destination)


def _is_ours(engine: Engine, container_id: str, directory: Path) -> bool:
    """Whether a new file of ours is seen in this container."""
    marker = directory / f".marker-{secrets.token_hex(8)}"
    nonce = secrets.token_bytes(32)
    try:
        marker.write_bytes(nonce)
        return engine.read_file(container_id, str(marker)) == nonce
    except OSError as error:
        raise SettingsError(f"CONSUMER_DIRECTORY: {directory} cannot be written to: {error}.") from error
    except (NotFoundError, RefusedError):
        return False
    finally:
        with suppress(OSError):
            marker.unlink()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        # Another kind of system, or a hardened one.
        return ""
