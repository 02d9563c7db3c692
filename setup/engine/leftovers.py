"""Remove what consumers left on an engine, by the label of their installation. Every command that stops a
server or leaves a Swarm enters.
"""

from __future__ import annotations

import time

from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.engine import engine

INSTALLATION_LABEL = "org.inferenceserver.installation"
# For a container that somebody else is removing, a Swarm most often.
_GONE_SECONDS = 30.0
_CONFLICT = 409


def remove(docker_host: str, installation: str) -> int:
    """Remove the containers and volumes of this installation; how many there were."""
    try:
        client = engine.connect(docker_host)
    except (DockerException, RequestException) as error:
        raise SetupError(f"What models left on the engine could not be removed: {error}") from error
    try:
        chosen: dict[str, str | list[str] | bool] = {"label": f"{INSTALLATION_LABEL}={installation}"}
        containers = client.containers.list(all=True, filters=chosen, ignore_removed=True)
        for container in containers:
            remove_container(container)
        volumes = client.volumes.list(filters=chosen)
        for volume in volumes:
            volume.remove(force=True)
        for network in client.networks.list(filters=chosen):
            network.remove()
        return len(containers) + len(volumes)
    except (DockerException, RequestException) as error:
        raise SetupError(f"What models left on the engine could not be removed: {error}") from error
    finally:
        client.close()


def remove_container(container: Container) -> None:
    """Remove it with its volumes, or wait until whoever is at it already has."""
    deadline = time.monotonic() + _GONE_SECONDS
    while True:
        try:
            container.remove(force=True, v=True)
            return
        except NotFound:
            return
        except APIError as error:
            if error.status_code != _CONFLICT or time.monotonic() > deadline:
                raise
        time.sleep(0.2)
