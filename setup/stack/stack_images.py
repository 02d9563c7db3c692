"""The images of the full stack: the makers' own where a registry answers, equivalents built here otherwise.

Which of the two is decided once, at the first `make stack-up`, because their data differ: a PostgreSQL or a
store of another make does not read what the other wrote.
"""

from __future__ import annotations

from collections.abc import Mapping

import docker

from setup.console import SetupError, detail, step
from setup.engine import pulling
from setup.host.machine import Machine
from setup.images import base_image, images, part_images, service_images
from setup.places import Places
from setup.stack import stack_settings
from setup.stack.stack_settings import Source

DATA_VOLUMES = ("postgres-data", "s3-data", "rabbitmq-data")


def choose_source(
    client: docker.DockerClient, project: str, environment: Mapping[str, str], remembered: Mapping[str, str]
) -> Source:
    """Where the images of third parties come from; asks a registry when nobody has said so yet."""
    asked = stack_settings.read_source(environment.get("IMAGES", ""))
    before = stack_settings.read_source(remembered.get("IMAGES", ""))
    if asked and before and asked is not before and has_data(client, project):
        raise SetupError(
            f"IMAGES={asked} was asked for, but this stack's data was written by the {before} images, and "
            "neither reads the other's. `make backup TO=…`, `make stack-down PURGE=1`, start with the new "
            "images, then `make restore FROM=…`."
        )
    if asked or before:
        return asked or before or Source.LOCAL
    with step("Asking a registry for the images of PostgreSQL, RabbitMQ, the store and the proxy"):
        for name, default in stack_settings.UPSTREAM.items():
            refusal = _pull_unless_here(client, environment.get(name) or default)
            if refusal:
                detail(f"none can be pulled ({refusal}); they are built here instead")
                return Source.LOCAL
    return Source.UPSTREAM


def has_data(client: docker.DockerClient, project: str) -> bool:
    """Whether the stack has written anything that its images must be able to read."""
    wanted = {f"{project}_{volume}" for volume in DATA_VOLUMES}
    return any(volume.name in wanted for volume in client.volumes.list(filters={"name": project}))


def ensure(
    client: docker.DockerClient,
    places: Places,
    machine: Machine,
    environment: Mapping[str, str],
    chosen: stack_settings.Chosen,
) -> None:
    """Have every image that the settings name: pull it, or build it."""
    if environment.get("RELEASE_IMAGES") == "loaded":
        _require_loaded(client, chosen)
        return
    base_image.ensure(client, places, machine, environment)
    named = [chosen.values[name] for name in stack_settings.UPSTREAM]
    if set(named) & {part.tag for part in part_images.ALL}:
        part_images.ensure(client, places, environment)
    ours = service_images.ensure(client, places, environment)
    named += [value for name, value in chosen.values.items() if name.endswith("_IMAGE")]
    for image in dict.fromkeys(named):
        if image not in ours and (refusal := _pull_unless_here(client, image)):
            variable = next(name for name, value in chosen.values.items() if value == image)
            raise SetupError(
                f"{variable} is {image}, which is not here and could not be pulled ({refusal}). Pull or load "
                "it, or name another; IMAGES=local builds those of third parties from packages."
            )


def _require_loaded(client: docker.DockerClient, chosen: stack_settings.Chosen) -> None:
    """Where a bundle brought the images, none is built or pulled."""
    named = [value for name, value in chosen.values.items() if name.endswith("_IMAGE")]
    for image in dict.fromkeys([base_image.TAG, *named]):
        if images.image_id(client, image) is None:
            raise SetupError(
                f"The image {image} is not on this engine; ./install of the bundle loads it again."
            )


def _pull_unless_here(client: docker.DockerClient, image: str) -> str:
    if images.image_id(client, image) is not None:
        return ""
    detail(f"pulling {image}")
    return pulling.pull(client, image)
