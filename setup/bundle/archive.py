"""Write a bundle's archive in one pass: what is added is hashed on its way; the list of hashes comes last.

The archive is no more than a tar of one directory, so that `tar -xf` is all that its reader needs.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

from setup.bundle.manifest import Layer

SUMS, MANIFEST = "SHA256SUMS", "manifest.json"
# Level 1 takes a third of the time of the usual 6, for a tenth more bytes.
COMPRESSION_LEVEL = 1


class Archive:
    """The archive under way, in a draft beside ``target`` until ``finish``."""

    def __init__(self, target: Path, folder: str, seconds: int) -> None:
        self.target = target
        self.files: dict[str, str] = {}
        self._folder, self._seconds = folder, seconds
        self._draft = target.with_name(f".{target.name}.draft")
        self._tar = tarfile.open(self._draft, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - Closed by `close`.

    def add(self, name: str, content: bytes, mode: int = 0o644) -> str:
        """Add a file; its SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        self._tar.addfile(self._entry(name, len(content), mode), io.BytesIO(content))
        self.files[name] = digest
        return digest

    def add_layer(self, name: str, spool: Path) -> Layer:
        """Add a layer's file, compressed: the same bytes for the same layer, whenever it is done."""
        packed = spool.with_suffix(".gz")
        with (
            spool.open("rb") as source,
            packed.open("wb") as raw,
            gzip.GzipFile("", "wb", COMPRESSION_LEVEL, raw, mtime=0) as file,
        ):
            shutil.copyfileobj(source, file, 1024 * 1024)
        size = packed.stat().st_size
        with packed.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            content.seek(0)
            self._tar.addfile(self._entry(name, size, 0o644), content)
        packed.unlink()
        self.files[name] = digest
        return Layer(digest, size)

    def finish(self, manifest: str) -> None:
        """Add the manifest and the list of hashes, in which the manifest is the last; then it is whole."""
        self.add(MANIFEST, manifest.encode())
        sums = "".join(f"{digest}  {name}\n" for name, digest in self.files.items())
        self.add(SUMS, sums.encode())
        self._tar.close()
        self._draft.chmod(0o644)
        self._draft.replace(self.target)

    def close(self) -> None:
        """Remove what was not finished."""
        self._tar.close()
        self._draft.unlink(missing_ok=True)

    def _entry(self, name: str, size: int, mode: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(f"{self._folder}/{name}")
        entry.size, entry.mode, entry.mtime = size, mode, self._seconds
        return entry
