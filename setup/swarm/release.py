"""What exactly runs: each image of the stack by its content, for all machines alike.

What machines have to fetch is named by its digest in a registry; what runs where it was built, and everything
where there is no registry, by the image's own id. The engine never asks a registry about an id: a machine
has that very image, or says that it has none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import docker
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from setup.console import SetupError, detail, step
from setup.places import Places
from setup.stack import stack_secrets
from setup.swarm import deployment
from setup.swarm.settings import ON_EVERY_MACHINE, SwarmChosen

IMAGE_VARIABLES = (
    "POSTGRES_IMAGE", "RABBITMQ_IMAGE", "STORE_IMAGE", "PROXY_IMAGE", "PRIVATE_API_IMAGE",
    "PUBLIC_API_IMAGE", "CONSUMER_IMAGE", "PROXY_ADMIN_IMAGE",
)  # fmt: skip


def pins(client: docker.DockerClient, chosen: SwarmChosen, put: Callable[[str], str]) -> dict[str, str]:
    """What each image variable of ``chosen`` is once deployed; ``put`` brings one into the registry."""
    named = chosen.values
    pinned = {variable: image_id(client, named[variable]) for variable in IMAGE_VARIABLES}
    if chosen.registry:
        with step(f"Pushing what other machines run to {chosen.registry}"):
            elsewhere = [ON_EVERY_MACHINE, *(["RABBITMQ_IMAGE"] if chosen.own.has_broker_cluster else [])]
            for variable in elsewhere:
                pinned[variable] = put(named[variable])
                detail(pinned[variable])
    return pinned


def image_id(client: docker.DockerClient, name: str) -> str:
    """The id of an image that is here."""
    try:
        return str(client.images.get(name).id)
    except ImageNotFound as error:
        raise SetupError(f"The image {name} is not on this engine; `make images` builds it.") from error


def push(client: docker.DockerClient, host: str, name: str, registry: str, via: str = "") -> str:
    """Push an image into ``registry`` and return its name there with the digest.

    Docker's own client pushes, with the credentials that `docker login` left. ``via`` is another address of
    the same registry, where it may be written to.
    """
    path = name_in(registry, name)
    target = f"{via or registry}/{path}"
    repository, _, tag = target.rpartition(":")
    try:
        client.images.get(name).tag(repository, tag)
        try:
            deployment.command_line(host, ["push", "--quiet", target], {})
            digests = client.images.get(target).attrs.get("RepoDigests") or []
        finally:
            if target != name:
                client.images.remove(target, noprune=True)
    except (DockerException, RequestException) as error:
        raise SetupError(f"{name} could not be pushed to {registry}: {error}") from error
    for digest in digests:
        found, _, value = digest.partition("@")
        if found == repository:
            return f"{registry}/{path.rpartition(':')[0]}@{value}"
    raise SetupError(f"{registry} took {name} without naming its digest; is it an image registry?")


def name_in(registry: str, name: str) -> str:
    """The path and tag of an image below a registry: without the registry that its name may begin with."""
    first, slash, rest = name.partition("/")
    path = rest if slash and ("." in first or ":" in first or first == "localhost") else name
    path = path.removeprefix(registry.partition("/")[2] + "/") if "/" in registry else path
    return path if ":" in path.rpartition("/")[2] else f"{path}:latest"


def secrets_version(places: Places) -> str:
    """A short name for the secrets that there are. They are random and long; nothing can be told from it."""
    names: Iterable[str] = [*stack_secrets.PASSWORDS, "s3-access-key", "s3.json", "rabbitmq.json"]
    digest = hashlib.sha256()
    for name in [*sorted(names), "admin.key", "worker.key"]:
        digest.update(name.encode() + b"\0" + (places.secrets / name).read_bytes() + b"\0")
    return digest.hexdigest()[:12]
