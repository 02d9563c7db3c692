"""Remove what consumers left on an engine, by the label of their installation. `down` enters."""

from __future__ import annotations

from docker.errors import DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.engine import engine

INSTALLATION_LABEL = "org.inferenceserver.installation"


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
            container.remove(force=True, v=True)
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
