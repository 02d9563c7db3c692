"""Is this engine fit for us? Its version, its kind, and whether it sees our directories.

The parent process enters at start, and ``--check`` for people. A remote engine, or a desktop one with
directories of its own, answers all calls and would then run models with empty inputs: a file is read back
through a mount to find out.
"""

from __future__ import annotations

import secrets
from pathlib import PurePosixPath

from consumer.node.pause_image import ensure_pause_image
from consumer.node.residence import HostPaths
from consumer.node.workspace import remove_tree
from consumer.outside import labels
from consumer.outside.engine import MINIMUM_API_VERSION, Engine, EngineFacts
from consumer.outside.errors import EngineError
from consumer.outside.labels import Owner

_NONCE_FILE = "nonce"
_MOUNT = "/probe"


def check_engine(engine: Engine, host_paths: HostPaths, owner: Owner) -> EngineFacts:
    """What the engine is, once it has passed; raises ``EngineError`` with the reason if it has not."""
    facts = engine.facts()
    if facts.api_version < MINIMUM_API_VERSION:
        wanted, found = (".".join(map(str, version)) for version in (MINIMUM_API_VERSION, facts.api_version))
        raise EngineError(
            f"The container engine speaks Docker's API {found}, and {wanted} is needed: "
            "install Docker 20.10 or newer."
        )
    if facts.os != "linux":
        raise EngineError(f"The container engine runs {facts.os} containers; models need linux ones.")
    _check_mounts(engine, host_paths, owner)
    return facts


def _check_mounts(engine: Engine, host_paths: HostPaths, owner: Owner) -> None:
    """Create, never start, a container with a directory of ours in it, and read a file of it back."""
    probe = host_paths.ours / f"probe-{secrets.token_hex(8)}"
    name = f"{owner.name}-{probe.name}"
    nonce = secrets.token_bytes(32)
    probe.mkdir(parents=True, mode=0o700)
    marks = owner.labels() | {labels.ROLE: labels.ROLE_PROBE}
    try:
        (probe / _NONCE_FILE).write_bytes(nonce)
        image = ensure_pause_image(engine)
        engine.create_volume(name, host_paths.device(probe), marks)
        mount = {"Type": "volume", "Source": name, "Target": _MOUNT, "ReadOnly": True}
        body = {"Image": image, "Labels": marks, "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}}
        container_id = engine.create_container(body, name)
        try:
            seen = engine.read_file(container_id, f"{_MOUNT}/{_NONCE_FILE}")
        except EngineError as error:
            raise EngineError(_blind(host_paths, str(error))) from error
        if seen != nonce:
            raise EngineError(_blind(host_paths, "it shows another file there"))
    finally:
        _remove(engine, name)
        remove_tree(probe)


def _remove(engine: Engine, name: str) -> None:
    try:
        engine.remove_container(name)
        engine.remove_volume(name)
    except EngineError:
        # The check has failed for this very reason; a later check has names of its own.
        return


def _blind(host_paths: HostPaths, reason: str) -> str:
    directory = str(host_paths.ours)
    if host_paths.on_host != PurePosixPath(host_paths.ours):
        directory += f" of this container as {host_paths.on_host}"
    return (
        f"The container engine cannot see the directory {directory} ({reason}). It must run on this machine "
        "and share its file system: choose another engine with DOCKER_HOST, or a directory that it "
        "shares with CONSUMER_DIRECTORY; in a container, mount a named volume there."
    )
