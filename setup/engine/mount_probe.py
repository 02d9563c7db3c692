"""Does the engine see our directories? Found out by reading a new file back through a mount.

Nothing is run, so an empty image will do and no image has to be fetched first.
"""

from __future__ import annotations

import io
import secrets
import tarfile
from pathlib import Path

import docker
from docker.errors import DockerException, ImageNotFound
from docker.types import Mount

from setup.console import SetupError

EMPTY_IMAGE = "inferenceserver/empty:probe"


def require_sight(client: docker.DockerClient, directory: Path) -> None:
    """Refuse an engine that does not see ``directory``, with its own words where it has any."""
    secret = secrets.token_hex(16)
    probe = directory / f"probe-{secret[:8]}"
    probe.write_text(secret)
    try:
        seen = _read_through_mount(client, probe)
    finally:
        probe.unlink()
    if seen != secret:
        raise SetupError(
            f"The container engine cannot see {directory} ({seen[:200] or 'it saw another file'}). Models "
            "get their input through directories of this machine, so the engine must run here; in Docker "
            "Desktop, share this directory under Settings, Resources, File sharing."
        )


def _read_through_mount(client: docker.DockerClient, path: Path) -> str:
    try:
        client.images.get(EMPTY_IMAGE)
    except ImageNotFound:
        empty = io.BytesIO()
        with tarfile.open(fileobj=empty, mode="w"):
            pass
        repository, tag = EMPTY_IMAGE.split(":")
        client.api.import_image_from_data(empty.getvalue(), repository=repository, tag=tag)
    try:
        # Unlike a `-v` volume, a mount of type bind is never created where its source does not exist.
        mount = Mount("/probe", str(path), type="bind", read_only=True)
        container = client.containers.create(EMPTY_IMAGE, command=["/never-run"], mounts=[mount])
    except DockerException as error:
        return str(getattr(error, "explanation", None) or error)
    try:
        chunks, _ = container.get_archive("/probe")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            content = archive.extractfile(archive.getmembers()[0])
            return content.read().decode() if content else ""
    except (DockerException, OSError) as error:
        return str(error)
    finally:
        container.remove(force=True)
