"""What every blob store can do, whatever it is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from contracts.messages import BlobFacts

_log = logging.getLogger(__name__)

# One piece of a stream: large enough to be fast, small enough to have many under way.
CHUNK_BYTES = 1024 * 1024
# What the first part of a key may be.
BLOB_KINDS = ("inputs", "contents", "outputs")


class BlobStoreFullError(Exception):
    """There is no room left for these bytes."""


class BlobMissingError(Exception):
    """There is no blob under this key."""


class BlobStoreUnavailableError(Exception):
    """The store does not answer, or not as it should; the same call may succeed later."""


class BlobWriter(Protocol):
    """One upload under way; leaving its ``with`` block without ``finish`` leaves nothing behind."""

    def write(self, data: bytes) -> None:
        """Append ``data``; raises ``BlobStoreFullError`` or ``BlobStoreUnavailableError``."""

    def finish(self) -> BlobFacts:
        """Make the blob appear, complete and durable, and say what was stored; raises as ``write`` does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class BlobStore(Protocol):
    """A room full of blobs. Whatever needs the store raises ``BlobStoreUnavailableError`` when it is away."""

    def begin(self, key: str, *, declared_bytes: int | None) -> BlobWriter:
        """Start an upload of what will appear under ``key``.

        ``declared_bytes``: the most that it will have, where the sender has said so. Raises
        ``BlobStoreFullError`` where it is known that there is no room.
        """

    def open(self, key: str) -> BinaryIO:
        """The blob as a seekable file, to be closed by the caller; raises ``BlobMissingError``.

        Its ``read`` raises ``BlobStoreUnavailableError`` when the bytes stop coming.
        """

    def direct_url(self, key: str, *, filename: str) -> str | None:
        """Where the bearer of the address may fetch the blob from the store itself for some minutes.

        None where people do not reach the store. The address is a secret: it must never be logged.
        """

    def delete(self, key: str) -> None:
        """Remove the blob; fine if it is gone already."""

    def keys_older_than(self, age_seconds: float) -> Iterator[str]:
        """Keys of blobs stored at least ``age_seconds`` ago."""

    def sweep_unfinished(self) -> None:
        """Remove what uploads left behind whose process has died."""

    def check(self) -> None:
        """Raise an error saying what is wrong when the store cannot be used; within seconds."""


def discard(store: BlobStore, keys: Iterable[str]) -> None:
    """Delete blobs that nothing refers to any more, where the store lets us.

    What made them garbage has been committed already, so it must not be answered as failed because the store
    is away: what stays behind is found by the sweeper.
    """
    for key in keys:
        try:
            store.delete(key)
        except (BlobStoreUnavailableError, OSError) as error:
            # Each of the others would take as long to fail.
            _log.warning("blobs are left to the sweeper: %s", error, extra={"action": "discard", "blob": key})
            return
