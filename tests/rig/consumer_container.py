"""The consumer as a container of its own, as the stack runs it: the engine's socket, a volume, little else.

Tests enter. The image is the base of our own images (``python -m setup images`` builds it) with this checkout
and its packages mounted, so that what runs is what was last written. A missing image fails the test.
"""

from __future__ import annotations

import contextlib
import secrets
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from docker.errors import NotFound
from docker.types import Mount

from tests.models.images import engine
from tests.rig.processes import ROOT

IMAGE = "inferenceserver/python:3"
DIRECTORY = "/var/lib/inferenceserver"
SOCKET = "/var/run/docker.sock"
# All that root needs of its powers: to read and remove what models made unreadable, and what lies in sticky
# directories of theirs.
CAPABILITIES = ("DAC_OVERRIDE", "FOWNER")


def gateway() -> str:
    """This machine's address on the engine's bridge, where containers reach it."""
    bridge = engine().networks.get("bridge")
    return str(bridge.attrs["IPAM"]["Config"][0]["Gateway"])


@dataclass
class ConsumerContainer:
    """A consumer with a volume that outlives its containers, in any number of lives."""

    environment: dict[str, str]
    mounts: list[Mount] = field(default_factory=list)
    # Whatever of ``docker run`` is to be different.
    options: dict[str, Any] = field(default_factory=dict)
    volume: str = field(default_factory=lambda: f"rig-consumer-{secrets.token_hex(4)}")
    _container: Any = None

    def start(self, arguments: Sequence[str] = ("-m", "consumer")) -> None:
        """Begin a life in a new container; ``arguments`` are Python's."""
        packages = sysconfig.get_paths()["purelib"]
        mounts = [
            Mount("/app", str(ROOT), type="bind", read_only=True),
            Mount("/packages", packages, type="bind", read_only=True),
            Mount(SOCKET, SOCKET, type="bind"),
            *([Mount(DIRECTORY, self.volume, type="volume")] if self.volume else []),
            *self.mounts,
        ]
        settings: dict[str, Any] = {
            "entrypoint": ["python3", *arguments],
            "working_dir": "/app",
            "mounts": mounts,
            "environment": {
                "PYTHONPATH": "/packages",
                "PYTHONDONTWRITEBYTECODE": "1",
                "CONSUMER_DIRECTORY": DIRECTORY,
                "GPUS": "none",
                **self.environment,
            },
            "read_only": True,
            "tmpfs": {"/tmp": "rw,nosuid,nodev,noexec,size=64m"},
            "cap_drop": ["ALL"],
            "cap_add": list(CAPABILITIES),
            "security_opt": ["no-new-privileges"],
            "detach": True,
        }
        self._container = engine().containers.run(IMAGE, **(settings | self.options))

    @property
    def container_id(self) -> str:
        return str(self._container.id)

    @property
    def running(self) -> bool:
        self._container.reload()
        return bool(self._container.status == "running")

    def logs(self) -> str:
        """What it has said so far."""
        return str(self._container.logs().decode(errors="replace"))

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit status, once it ends by itself."""
        return int(self._container.wait(timeout=seconds)["StatusCode"])

    def stop(self, seconds: int = 40) -> int:
        """``docker stop``; returns the exit status, 137 when it had to be killed."""
        self._container.stop(timeout=seconds)
        return self.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._container.kill()
        self._container.wait()

    def remove(self) -> None:
        """Remove this life's container; the volume stays."""
        if self._container is not None:
            with contextlib.suppress(NotFound):
                self._container.remove(force=True, v=True)

    def close(self) -> None:
        """Remove container and volume."""
        self.remove()
        if self.volume:
            with contextlib.suppress(NotFound):
                engine().volumes.get(self.volume).remove(force=True)
