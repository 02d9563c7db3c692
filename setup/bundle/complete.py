"""Make what an engine can load out of a bundle that brings only what changed, and of what the engine has.

Runs on the target, in a container of an image of the earlier bundle, so it stands alone and needs nothing but
Python: standard input is `docker save` of images that have the missing layers, standard output is for
`docker load`, the argument is the bundle's directory. Nothing is kept but one piece of one file.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO


class Hashed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece = self._file.read(size)
        self._hash.update(piece)
        return piece

    @property
    def digest(self) -> str:
        """The hash of all that was read."""
        return self._hash.hexdigest()


def complete(bundle: Path, saved: BinaryIO, loaded: BinaryIO) -> str:
    """Write the images of ``bundle`` to ``loaded``; what is missing, or nothing."""
    # By the hash of the file as an engine may have it, compressed or not, the name that the bundle gives it.
    wanted = {}
    for line in (bundle / "release" / "needed").read_text().splitlines():
        digest, packed = line.removeprefix("sha256:").split()
        wanted[digest] = wanted[packed] = f"layers/{digest}.tar.gz"
    found: dict[str, str] = {}
    with (
        tarfile.open(fileobj=saved, mode="r|", bufsize=1 << 20) as source,
        tarfile.open(fileobj=loaded, mode="w|", bufsize=1 << 20) as target,
    ):
        for number, entry, content in _layers(source):
            place = tarfile.TarInfo(f"earlier/{number}.tar")
            place.size = entry.size
            hashed = Hashed(content)
            target.addfile(place, hashed)
            if hashed.digest in wanted:
                found[wanted[hashed.digest]] = place.name
        missing = sorted(set(wanted.values()) - set(found))
        if missing:
            # Without its manifest no engine takes the archive.
            return f"{len(missing)} layers of the earlier bundle are not on this engine, {missing[0]} first"
        images = bundle / "images"
        for path in sorted(path for path in images.rglob("*") if path.is_file()):
            if path.name != "manifest.json":
                target.add(path, path.relative_to(images).as_posix())
        manifest = json.loads((images / "manifest.json").read_text())
        for image in manifest:
            image["Layers"] = [found.get(name, name) for name in image["Layers"]]
        text = json.dumps(manifest).encode()
        last = tarfile.TarInfo("manifest.json")
        last.size = len(text)
        target.addfile(last, io.BytesIO(text))
    return ""


def _layers(source: tarfile.TarFile) -> Iterator[tuple[int, tarfile.TarInfo, IO[bytes]]]:
    for number, entry in enumerate(source):
        is_layer = entry.name.endswith("/layer.tar") or entry.name.startswith("blobs/")
        content = source.extractfile(entry) if is_layer and entry.isfile() else None
        if content is not None:
            yield number, entry, content


if __name__ == "__main__":
    refusal = complete(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
    if refusal:
        sys.exit(f"error: {refusal}")
