"""Pull an image with a limit for each silence: a registry that cannot be reached must not hold anybody up."""

from __future__ import annotations

import json

import docker
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import ImageNotFound
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

# A registry that says nothing for this long is taken for unreachable.
SILENCE_SECONDS = 10


def pull(engine: docker.DockerClient, image: str, silence_seconds: float = SILENCE_SECONDS) -> str:
    """Pull ``image``; the reason why not, or nothing when it is there."""
    repository, tag = image.rsplit(":", 1)
    registry, _ = resolve_repository_name(repository)
    login = get_config_header(engine.api, registry)
    try:
        # The SDK's own pull waits for ever; the same request with a limit for each silence.
        with engine.api.post(
            f"{engine.api.base_url}/v{engine.api.api_version}/images/create",
            params={"fromImage": repository, "tag": tag},
            headers={"X-Registry-Auth": login} if login else {},
            stream=True,
            timeout=silence_seconds,
        ) as answer:
            refusal = next(filter(None, map(_refusal_in, answer.iter_lines())), "")
    except (RequestException, HTTPError):
        return f"no registry answered within {silence_seconds:g} s"
    if refusal:
        return refusal
    try:
        engine.images.get(image)
    except ImageNotFound:
        return "the engine ended the pull without an image"
    return ""


def _refusal_in(line: bytes) -> str:
    """The engine's reason to end a pull, from one line of its answer; empty when it goes on."""
    try:
        event = json.loads(line or b"{}")
    except ValueError:
        return line.decode(errors="replace")[:200]
    return str(event.get("error") or event.get("message") or "") if isinstance(event, dict) else ""
