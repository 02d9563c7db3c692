"""Build the images of our own services: private API, public API, consumer, and what manages the proxy.

Each Dockerfile in `images/` copies the rooms that its service imports. The context that the engine is sent
holds exactly what the Dockerfile names, so an image is built anew when, and only when, something in it
changed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import docker

from setup.images import base_image, images
from setup.places import Places


@dataclass(frozen=True)
class ServiceImage:
    """One service's image; ``name`` is its folder below `images/`."""

    name: str
    title: str

    @property
    def dockerfile(self) -> str:
        """The Dockerfile's path in the checkout, and in its build's context."""
        return f"images/{self.name}/Dockerfile"

    def tag(self, version: str) -> str:
        """The tag under which it is built."""
        return f"inferenceserver/{self.name}:{version}"


PRIVATE_API = ServiceImage("private-api", "the private API")
PUBLIC_API = ServiceImage("public-api", "the public API")
CONSUMER = ServiceImage("consumer", "the consumer")
PROXY_ADMIN = ServiceImage("proxy-admin", "the proxy's management")
ALL = (PRIVATE_API, PUBLIC_API, CONSUMER, PROXY_ADMIN)


def ensure(engine: docker.DockerClient, places: Places, environment: Mapping[str, str]) -> dict[str, str]:
    """The ids of all of them by tag, each built if it is missing or anything in it changed."""
    version = read_version(places.checkout)
    settings = {"BASE": base_image.TAG, **images.forwarded_settings(environment)}
    built = {}
    for service in ALL:
        recipe = images.Recipe(
            service.tag(version),
            service.title,
            context(places.checkout, service),
            base_image.TAG,
            dockerfile=service.dockerfile,
            arguments=settings,
        )
        built[recipe.tag] = images.ensure(engine, recipe, places.logs / f"build-{service.name}.log")
    return built


def read_version(checkout: Path) -> str:
    """The project's version, which is the tag of its images."""
    return str(tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"])


def context(checkout: Path, service: ServiceImage) -> dict[str, bytes]:
    """The Dockerfile and every file below what it copies, by path in the checkout."""
    dockerfile = (checkout / service.dockerfile).read_text()
    files = {service.dockerfile: dockerfile.encode()}
    for source in copied(dockerfile):
        place = checkout / source
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        for path in found:
            if path.is_file() and "__pycache__" not in path.parts:
                files[path.relative_to(checkout).as_posix()] = path.read_bytes()
    return files


def copied(dockerfile: str) -> list[str]:
    """What the COPY instructions of a Dockerfile take from its context."""
    lines = (line.split() for line in dockerfile.splitlines())
    return [source for words in lines if words[:1] == ["COPY"] for source in words[1:-1]]
