"""Build the images of the services that ours stand on, where no image registry can be reached: PostgreSQL,
RabbitMQ, an S3 store, Caddy. Their Dockerfiles lie in `images/`; the tests run the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import docker

from setup.images import base_image, images
from setup.places import Places


@dataclass(frozen=True)
class PartImage:
    """One service's image: the folder below `images/`, and the image that it is built on."""

    folder: str
    title: str
    parent: str
    # The name of the build argument that takes the parent.
    argument: str

    @property
    def tag(self) -> str:
        """The tag under which it is built."""
        return f"inferenceserver/{self.folder}:1"


POSTGRES = PartImage("postgres", "PostgreSQL", base_image.SYSTEM_TAG, "SYSTEM")
RABBITMQ = PartImage("rabbitmq", "RabbitMQ", base_image.SYSTEM_TAG, "SYSTEM")
STORE = PartImage("s3", "the S3 store", base_image.TAG, "BASE")
CADDY = PartImage("caddy", "Caddy", base_image.SYSTEM_TAG, "SYSTEM")
ALL = (POSTGRES, RABBITMQ, STORE, CADDY)


def ensure(engine: docker.DockerClient, places: Places, environment: Mapping[str, str]) -> dict[str, str]:
    """The ids of all of them by tag, each built if it is missing or anything in it changed."""
    return {part.tag: ensure_one(engine, places, environment, part) for part in ALL}


def ensure_one(
    engine: docker.DockerClient, places: Places, environment: Mapping[str, str], part: PartImage
) -> str:
    """The id of one of them, built if it is missing or anything in it changed."""
    recipe = images.Recipe(
        part.tag,
        part.title,
        images.read_context(places.checkout / "images" / part.folder),
        part.parent,
        arguments={part.argument: part.parent, **images.forwarded_settings(environment)},
    )
    return images.ensure(engine, recipe, places.logs / f"build-{part.folder}.log")
