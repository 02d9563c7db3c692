"""Read what an engine saves of images, as it comes: configurations into memory, one layer at a time to a
file.

Knows both forms, that of engines before 25 (`ID/layer.tar`, doubles as links) and the later one
(`blobs/sha256/…`). Sources: Docker image specification 1.2, OCI image layout.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker
from docker.errors import APIError
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from setup.console import SetupError

PIECE_BYTES = 1024 * 1024
# An engine packs its images before it says anything.
SILENCE_SECONDS = 600
# A configuration or a manifest; layers of this size are read like any other.
_LARGEST_DOCUMENT = 4 * 1024 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class SavedImage:
    """One image of the stream: its configuration as it is, and its layers' digests, the lowest first."""

    configuration: bytes
    layers: tuple[str, ...]

    @property
    def id(self) -> str:
        """The hash of its configuration."""
        return f"sha256:{hashlib.sha256(self.configuration).hexdigest()}"


def read(
    client: docker.DockerClient, images: list[str], spool: Path, take: Callable[[str, Path], None]
) -> list[SavedImage]:
    """The images, in the engine's order. ``take`` is called once for each layer, with its digest, while it
    lies uncompressed in the file ``spool``."""
    try:
        with client.api.get(
            f"{client.api.base_url}/v{client.api.api_version}/images/get",
            params={"names": images},
            stream=True,
            timeout=SILENCE_SECONDS,
        ) as answer:
            if answer.status_code != 200:
                raise SetupError(f"The engine does not save the images: {answer.text[:300]}")
            with tarfile.open(fileobj=answer.raw, mode="r|", bufsize=PIECE_BYTES) as stream:
                return gather(stream, spool, take)
    except (APIError, RequestException, HTTPError, tarfile.TarError) as error:
        raise SetupError(f"The engine broke off while it saved the images: {error}") from error


def gather(stream: tarfile.TarFile, spool: Path, take: Callable[[str, Path], None]) -> list[SavedImage]:
    """The images in a stream of the engine's, as ``read`` says."""
    documents: dict[str, bytes] = {}
    links: dict[str, str] = {}
    taken: set[str] = set()
    for entry in stream:
        name = posixpath.normpath(entry.name)
        if entry.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.linkname))
        elif entry.islnk():
            links[name] = posixpath.normpath(entry.linkname)
        elif entry.isfile() and (content := stream.extractfile(entry)):
            head = content.read(_LARGEST_DOCUMENT) if entry.size <= _LARGEST_DOCUMENT else b""
            if _is_document(head):
                documents[name] = head
            elif name.endswith("/layer.tar") or name.startswith("blobs/"):
                digest = _spool(head, content, spool)
                if digest not in taken:
                    taken.add(digest)
                    take(digest, spool)
    if "manifest.json" not in documents:
        raise SetupError("What the engine saved has no manifest; it broke off, or its disk is full.")
    found = [_image(documents, links, listed) for listed in json.loads(documents["manifest.json"])]
    if missing := {layer for image in found for layer in image.layers} - taken:
        raise SetupError(f"What the engine saved lacks {len(missing)} layers.")
    return found


def _image(documents: dict[str, bytes], links: dict[str, str], listed: dict[str, Any]) -> SavedImage:
    name = posixpath.normpath(listed["Config"])
    configuration = documents[links.get(name, name)]
    return SavedImage(configuration, tuple(json.loads(configuration)["rootfs"]["diff_ids"]))


def _is_document(head: bytes) -> bool:
    if head[:1] not in {b"{", b"["}:
        return False
    try:
        json.loads(head)
    except ValueError:
        return False
    return True


def _spool(head: bytes, content: IO[bytes], spool: Path) -> str:
    """Write a layer without its compression; its digest."""
    with spool.open("wb") as file:
        for piece in _pieces(head, content):
            file.write(piece)
    with spool.open("rb") as file:
        start = file.read(4)
    if start == _ZSTD:
        raise SetupError(
            "An image has a layer that is compressed by zstd, which cannot be read here; build it anew."
        )
    if start[:2] == _GZIP:
        packed = spool.with_suffix(".packed")
        spool.replace(packed)
        with gzip.open(packed) as source, spool.open("wb") as file:
            while piece := source.read(PIECE_BYTES):
                file.write(piece)
        packed.unlink()
    with spool.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _pieces(head: bytes, content: IO[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    while piece := content.read(PIECE_BYTES):
        yield piece
