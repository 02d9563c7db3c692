"""What every blob store can do, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from contracts.messages import BlobFacts

# One piece of a stream: large enough to be fast, small enough to have many under way.
CHUNK_BYTES = 1024 * 1024


class BlobStoreFullError(Exception):
    """There is no room left for these bytes."""


class BlobMissingError(Exception):
    """There is no blob under this key."""


class BlobWriter(Protocol):
    """One upload under way; leaving its ``with`` block without ``finish`` leaves nothing behind."""

    def write(self, data: bytes) -> None:
        """Append ``data``; raises ``BlobStoreFullError``."""

    def finish(self, key: str) -> BlobFacts:
        """Make the blob appear under ``key``, complete and durable, and say what was stored."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BlobStore(Protocol):
    """A room full of blobs."""

    def begin(self) -> BlobWriter:
        """Start an upload."""

    def open(self, key: str) -> BinaryIO:
        """The blob as a seekable file, to be closed by the caller; raises ``BlobMissingError``."""

    def delete(self, key: str) -> None:
        """Remove the blob; fine if it is gone already."""

    def keys_older_than(self, age_seconds: float) -> Iterator[str]:
        """Keys of blobs stored at least ``age_seconds`` ago."""

    def sweep_unfinished(self) -> None:
        """Remove what uploads left behind whose process has died."""

    def check(self) -> None:
        """Raise an ``OSError`` saying what is wrong when the store cannot be used."""
