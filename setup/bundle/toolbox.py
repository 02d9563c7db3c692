"""The image that sets a server up where there is nothing but an engine: this room, what it needs, Compose."""

from __future__ import annotations

from collections.abc import Mapping

import docker

from setup.images import base_image, images, service_images
from setup.images.service_images import ServiceImage
from setup.places import Places

SETUP = ServiceImage("setup", "what sets a server up")


def ensure(client: docker.DockerClient, places: Places, environment: Mapping[str, str]) -> str:
    """Its tag; it is built if it is missing or anything in it changed."""
    recipe = images.Recipe(
        SETUP.tag(service_images.read_version(places.checkout)),
        SETUP.title,
        service_images.context(places.checkout, SETUP),
        base_image.TAG,
        dockerfile=SETUP.dockerfile,
        arguments={"BASE": base_image.TAG, **images.forwarded_settings(environment)},
    )
    images.ensure(client, recipe, places.logs / f"build-{SETUP.name}.log")
    return recipe.tag
