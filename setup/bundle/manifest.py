"""What a bundle says of itself: `manifest.json`, and what a later one may leave out because of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from setup.console import SetupError

FORMAT = 1


@dataclass(frozen=True)
class Image:
    """One image of a release. ``layers`` are the digests of its uncompressed layers, the lowest first."""

    tag: str
    id: str
    created: str
    layers: tuple[str, ...]

    @property
    def identity(self) -> str:
        """What any engine says of this image and of no other; ids differ between engines' image stores."""
        return f"{self.created} {' '.join(self.layers)}"


@dataclass(frozen=True)
class Layer:
    """One layer as a file of a bundle. ``sha256`` and ``size_bytes`` are those of the compressed file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """A release as one bundle brings it. ``layers`` has all layers of the release, by digest;
    ``brought`` those that are in this bundle."""

    version: str
    created: str
    architecture: str
    source: str
    setup_image: str
    images: tuple[Image, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    brought: tuple[str, ...] = ()
    since: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def release(self) -> str:
        """The version with a short hash of its images: what tells two builds of one version apart."""
        facts = json.dumps(sorted((image.tag, image.identity) for image in self.images))
        return f"{self.version} ({hashlib.sha256(facts.encode()).hexdigest()[:12]})"


def render(manifest: Manifest) -> str:
    """The text of `manifest.json`."""
    document = {"format": FORMAT, "release": manifest.release, **asdict(manifest)}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def parse(text: str | bytes, origin: str) -> Manifest:
    """The manifest in a text; raises ``SetupError`` that names ``origin`` where there is none."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document.pop("format") != FORMAT:
            raise SetupError(f"{origin} is of another format than this version writes; make a whole bundle.")
        document.pop("release")
        document["images"] = tuple(
            Image(**{**image, "layers": tuple(image["layers"])}) for image in document["images"]
        )
        document["layers"] = {digest: Layer(**layer) for digest, layer in document["layers"].items()}
        document["brought"] = tuple(document["brought"])
        return Manifest(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"{origin} is not the manifest of a bundle.") from error


def changed(images: Iterable[Image], base: Manifest | None) -> list[Image]:
    """The images that a machine with ``base`` does not have under this name."""
    known = {(image.tag, image.identity) for image in base.images} if base else set()
    return [image for image in images if (image.tag, image.identity) not in known]


def layers_of(images: Iterable[Image]) -> list[str]:
    """Every layer of these images once."""
    return list(dict.fromkeys(layer for image in images for layer in image.layers))


def wanted_layers(images: Iterable[Image], base: Manifest | None) -> set[str]:
    """The layers that a bundle must bring to a machine that has ``base``."""
    known = set(layers_of(base.images)) if base else set()
    return set(layers_of(changed(images, base))) - known


def needed_lines(images: Iterable[Image], base: Manifest | None) -> list[str]:
    """The layers that the target must have: digest, and the hash of the file in which it once came."""
    if base is None:
        return []
    absent = [digest for digest in layers_of(changed(images, base)) if digest in set(layers_of(base.images))]
    return [f"{digest} {base.layers[digest].sha256}" for digest in absent]


def archive_name(version: str, since: str = "") -> str:
    """The file's name; ``since`` is the version of an earlier bundle."""
    return f"inferenceserver-{version}{f'-since-{since}' if since else ''}.tar"
