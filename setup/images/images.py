"""Build images through the engine's own API: the classic builder, so no client and no BuildKit is needed.

An image carries a label with the fingerprint of all that went into it; one that carries the right label is
not built again. Its tag moves only when a build has ended well, so a build that is cut off leaves nothing
that could be taken for the finished image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import docker
from docker.errors import APIError, ImageNotFound
from docker.utils.build import exclude_paths
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from setup.console import SetupError, detail, step

# A step that trains may be silent for a while.
BUILD_SILENCE_SECONDS = 600
FINGERPRINT_LABEL = "inferenceserver.fingerprint"
# Settings of the building machine that a build needs too, where they are set.
FORWARDED = (
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What an image is built from. ``parent`` is the image that its Dockerfile names first."""

    tag: str
    title: str
    context: Mapping[str, bytes]
    parent: str
    dockerfile: str = "Dockerfile"
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


def read_context(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their path in it, without what its .dockerignore leaves out."""
    ignored = folder / ".dockerignore"
    patterns = ignored.read_text().split() if ignored.exists() else []
    paths = exclude_paths(str(folder), [*patterns, "**/__pycache__"])
    files = {name: folder / name for name in paths if (folder / name).is_file()}
    return {name: path.read_bytes() for name, path in sorted(files.items())}


def forwarded_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Proxy and package index settings as build arguments; an index that is a local path stays behind.

    So do the user name and password of an index: an image's history shows its build arguments to everybody.
    (It does not show those of a proxy, as long as no Dockerfile declares them.)
    """
    chosen = {name: environment[name] for name in FORWARDED if environment.get(name)}
    cleaned = {
        name: _public_addresses(value) if name.endswith("INDEX_URL") else value
        for name, value in chosen.items()
    }
    return {name: value for name, value in cleaned.items() if value}


def withheld_credentials(environment: Mapping[str, str]) -> list[str]:
    """The settings whose user name or password no build is told."""
    return [
        name
        for name in FORWARDED
        if name.endswith("INDEX_URL")
        and any("@" in urlsplit(address).netloc for address in environment.get(name, "").split())
    ]


def _public_addresses(value: str) -> str:
    """The web addresses in a setting that may hold several, without user names and passwords."""
    parts = [urlsplit(address) for address in value.split()]
    return " ".join(
        urlunsplit(part._replace(netloc=part.netloc.rpartition("@")[2]))
        for part in parts
        if part.scheme in {"http", "https"}
    )


def build_network(arguments: Mapping[str, str]) -> str | None:
    """The host's network where a proxy or index listens on loopback only, else the engine's default."""
    hosts = {urlsplit(value).hostname for value in arguments.values() if "://" in value}
    return "host" if hosts & {"localhost", "127.0.0.1", "::1"} else None


def fingerprint(recipe: Recipe, parent_id: str) -> str:
    """A hash of all that decides what the image becomes; forwarded settings do not."""
    facts = {
        "parent": parent_id,
        "dockerfile": recipe.dockerfile,
        "target": recipe.target,
        "arguments": {key: value for key, value in recipe.arguments.items() if key not in FORWARDED},
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(recipe.context.items())},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def image_id(engine: docker.DockerClient, tag: str) -> str | None:
    """The id of a local image, or None."""
    try:
        return str(engine.images.get(tag).id)
    except ImageNotFound:
        return None


def ensure(engine: docker.DockerClient, recipe: Recipe, log: Path) -> str:
    """The id of the recipe's image, built if it is missing or anything in it changed."""
    parent_id = image_id(engine, recipe.parent)
    if parent_id is None:
        raise SetupError(f"{recipe.tag} needs the image {recipe.parent}; `make images` builds it first.")
    wanted = fingerprint(recipe, parent_id)
    try:
        present = engine.images.get(recipe.tag)
        if present.labels.get(FINGERPRINT_LABEL) == wanted:
            return str(present.id)
    except ImageNotFound:
        pass
    with step(f"Building {recipe.title} ({recipe.tag})"):
        _build(engine, recipe, wanted, log)
    built = image_id(engine, recipe.tag)
    if built is None:
        raise SetupError(f"The build of {recipe.tag} ended without an image; its log is {log}.")
    return built


def _build(engine: docker.DockerClient, recipe: Recipe, label: str, log: Path) -> None:
    run_build(
        engine,
        recipe.tag,
        log,
        fileobj=_pack(recipe.context),
        custom_context=True,
        dockerfile=recipe.dockerfile,
        target=recipe.target,
        buildargs=dict(recipe.arguments),
        labels={FINGERPRINT_LABEL: label},
        network_mode=build_network(recipe.arguments),
    )


def run_build(engine: docker.DockerClient, tag: str, log: Path, **options: Any) -> None:
    """Build ``tag`` from what ``options`` of the SDK's ``build`` name, and show its steps.

    Raises ``SetupError`` with the last lines of the build's log.
    """
    last: list[str] = []
    try:
        events = engine.api.build(
            tag=tag,
            rm=True,
            forcerm=True,  # A step that fails leaves no container behind.
            decode=True,
            timeout=BUILD_SILENCE_SECONDS,
            **options,
        )
        with log.open("w") as output:
            for event in events:
                text = _text_of(event)
                output.write(text)
                last = [*last, *text.splitlines()][-12:]
                if text.startswith("Step ") and " : RUN " in text:
                    detail(" ".join(text.split())[:100])
                if "error" in event:
                    raise SetupError(_failed(tag, last, log))
    except APIError as error:
        raise SetupError(f"The engine refused to build {tag}: {error.explanation}") from error
    except (RequestException, HTTPError) as error:
        # While a stream is read, the SDK lets through what the library below it raises.
        raise SetupError(
            f"The engine broke off while it built {tag}, or was silent for {BUILD_SILENCE_SECONDS} s "
            f"({type(error).__name__}); see that it runs, and run this again. The build's log is {log}."
        ) from error


def _text_of(event: Mapping[str, Any]) -> str:
    return str(event.get("stream") or event.get("error") or event.get("status") or "")


def _failed(tag: str, last: list[str], log: Path) -> str:
    lines = "\n".join(f"    {line}" for line in last)
    return f"The build of {tag} failed; its whole log is {log}. The last lines:\n{lines}"


def _pack(files: Mapping[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)  # With no time and no owner, so that the builder's cache holds.
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    packed.seek(0)
    return packed
