"""The small files of a bundle: its scripts, its documents, and the lists that its scripts read. Pure but for
reading the checkout.

Shell reads lines, not JSON; what stands in these lists stands in the manifest too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from setup.bundle import manifest
from setup.bundle.manifest import Manifest
from setup.images import base_image
from setup.stack import registry_credentials, stack_settings

_HERE = Path(__file__).parent
# Variables of single commands, beside the stack's settings.
OF_COMMANDS = ("ARGS", "PURGE", registry_credentials.VARIABLE)


def folder(release: Manifest) -> str:
    """The one directory in the archive."""
    return f"inferenceserver-{release.version}"


def layer_file(digest: str) -> str:
    """Where a layer lies in a bundle."""
    return f"images/layers/{digest.removeprefix('sha256:')}.tar.gz"


def scripts() -> dict[str, bytes]:
    """What the target runs."""
    return {name: (_HERE / name).read_bytes() for name in ("install", "inferenceserver")}


def documents(checkout: Path) -> dict[str, bytes]:
    """What people read, without pictures or code."""
    paths = [checkout / "CHANGELOG.md", *sorted((checkout / "docs").rglob("*.md"))]
    return {path.relative_to(checkout).as_posix(): path.read_bytes() for path in paths}


def facts(release: Manifest, base: Manifest | None) -> dict[str, bytes]:
    """The lists, as files of the directory `release`."""
    brought = {image.tag for image in manifest.changed(release.images, base)}
    told = {
        "version": release.version,
        "release": release.release,
        "architecture": release.architecture,
        "setup": release.setup_image,
        "python": base_image.TAG,
        "since": release.since,
    }
    lines = {
        "facts": [f"{name} {value}" for name, value in told.items() if value],
        "images": [
            f"{'brought' if image.tag in brought else 'earlier'}|{image.tag}|{image.identity}"
            for image in release.images
        ],
        "needed": manifest.needed_lines(release.images, base),
        "variables": [f"{name}={value}" for name, value in sorted(release.settings.items())],
        "settings": settings(),
    }
    files = {
        f"release/{name}": "".join(f"{line}\n" for line in found).encode() for name, found in lines.items()
    }
    return {**files, "release/complete.py": (_HERE / "complete.py").read_bytes()}


def settings() -> list[str]:
    """The variables that an operator may set; those that name images are the release's own affair."""
    of_stack = (
        *stack_settings.DEFAULTS,
        *stack_settings.OPTIONAL,
        *stack_settings.OF_SERVICES,
        "DOCKER_SOCKET",
    )
    return sorted({name for name in (*of_stack, *OF_COMMANDS) if not name.endswith("_IMAGE")})


def as_json(document: Any) -> bytes:
    """JSON as people can read it."""
    return (json.dumps(document, indent=1) + "\n").encode()
