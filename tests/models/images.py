"""Makes the images of the tiny models, from scratch and a static busybox; no registry is asked.

Tests and benchmarks enter with ``image_of``. An image is built once per content: its tag is a hash of what
it is made from, so that a second run builds nothing. All carry one label, by which
``python -m tests.models remove`` finds them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.models.catalogue import MODELS

REPOSITORY = "inferenceserver-test-models"
LABEL = "org.inferenceserver.test-model"


@functools.cache
def engine() -> docker.DockerClient:
    """The engine that tests use; a missing one fails them."""
    return docker.from_env(timeout=60)


@functools.cache
def image_of(name: str) -> str:
    """The tag of the image of the model ``name``, which is built where it is missing."""
    base = _base_image()
    entrypoint = json.dumps(MODELS[name].entrypoint)
    dockerfile = f'FROM {base}\nLABEL {LABEL}="{name}"\nENTRYPOINT {entrypoint}\n'
    tag = f"{REPOSITORY}/{name}:{_hash(dockerfile.encode())}"
    if not _exists(tag):
        engine().images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, forcerm=True)
    return tag


def remove_all() -> list[str]:
    """Remove every image that this room has made, of any version; returns their tags."""
    removed = []
    for image in engine().images.list(filters={"label": LABEL}):
        for tag in image.tags:
            engine().images.remove(tag, force=True)
            removed.append(tag)
    return removed


@functools.cache
def _base_image() -> str:
    archive = _archive()
    tag = f"{REPOSITORY}/base:{_hash(archive)}"
    if not _exists(tag):
        repository, _, version = tag.partition(":")
        engine().api.import_image_from_data(
            archive, repository=repository, tag=version, changes=[f"LABEL {LABEL}=base"]
        )
    return tag


def _archive() -> bytes:
    """A root directory with busybox under all its names, the same bytes every time."""
    buffer = io.BytesIO()
    program = _busybox()
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        content = program.read_bytes()
        busybox = tarfile.TarInfo("bin/busybox")
        busybox.size, busybox.mode = len(content), 0o755
        tar.addfile(busybox, io.BytesIO(content))
        for applet in sorted(set(applets) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("The tests build their images from a static busybox: install busybox-static.")
    return Path(found)


def _exists(tag: str) -> bool:
    try:
        engine().images.get(tag)
    except ImageNotFound:
        return False
    return True


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
