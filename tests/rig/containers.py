"""What tests do with containers: run a command inside, or in one of its own, and hear all; freeze one.

Parts, brokers and stacks enter. The SDK's own ``exec_run`` loses what comes together with the head of the
engine's answer, which is all of it where a quick command meets a slow reader.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError

from setup.engine import container_streams
from tests.rig.polling import eventually


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    exit_code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """Its output as text; raises ``AssertionError`` when it failed."""
        return self.checked().decode(errors="replace")

    def checked(self) -> bytes:
        """Its output; raises ``AssertionError`` when it failed."""
        assert self.exit_code == 0, f"it ended with {self.exit_code}: {self.output!r} {self.errors}"
        return self.output


def run_inside(container: Any, command: list[str], *, user: str = "") -> Done:
    """Run ``command`` inside ``container``, one of the SDK's, as ``user`` or as its own."""
    output = io.BytesIO()
    status, errors = container_streams.attempt(
        container.client, container.id, command, user=user, target=output
    )
    return Done(status, output.getvalue(), errors)


def run_alone(client: docker.DockerClient, image: str, command: list[str], **options: Any) -> Done:
    """Run ``command`` in a container of its own, made with the SDK's ``options`` and gone afterwards.

    The SDK's own ``run(remove=True)`` leaves the volumes behind that the image declares.
    """
    container = client.containers.create(image, command, **options)
    try:
        container.start()
        status = int(container.wait(timeout=60)["StatusCode"])
        return Done(
            status, container.logs(stderr=False), container.logs(stdout=False).decode(errors="replace")
        )
    finally:
        container.remove(force=True, v=True)


def freeze(container: Any) -> None:
    """Freeze ``container``: its connections stay open and nothing answers."""

    def frozen() -> bool:
        try:
            container.pause()
        except APIError as error:
            # On a busy machine the kernel may be too late for the engine's runtime, which thaws it again.
            if "unable to freeze" in str(error):
                return False
            raise
        return True

    eventually(frozen, 30, f"{container.name} is frozen", every=0.3)
