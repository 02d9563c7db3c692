"""Blobs as objects in one bucket of an S3 store, under the same keys as everywhere.

The bucket belongs to one installation alone: the sweeper deletes from it what its database does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, cast

from private_api.blobs.s3_bucket import S3Address, S3Bucket
from private_api.blobs.s3_connections import STALL_SECONDS
from private_api.blobs.s3_reader import S3BlobReader
from private_api.blobs.s3_upload import PartSenders, S3BlobWriter, Uploads, part_bytes_for
from private_api.blobs.store import BLOB_KINDS, BlobStoreFullError, BlobStoreUnavailableError

_log = logging.getLogger(__name__)

# Parts that travel while their uploads receive: enough to keep a network busy, and 24 MiB.
_SENDERS = 4
# Whoever asks how we are wants to know soon.
_CHECK_SECONDS = 3.0
# An upload of another process that began so long ago is taken for dead; ours are known.
_UNFINISHED_SECONDS = 24 * 3600.0
# Time to begin a download, and to go on with it some times over bad lines.
_DIRECT_SECONDS = 15 * 60


class S3BlobStore:
    """A blob store in a bucket.

    ``most_bytes`` bounds every blob; ``public`` is where people reach the store, None where they do not.
    """

    def __init__(
        self, address: S3Address, *, public: S3Address | None, most_bytes: int, threads: int
    ) -> None:
        self._bucket = S3Bucket(address, threads=threads + _SENDERS, stall_seconds=STALL_SECONDS)
        self._checked = S3Bucket(address, threads=1, stall_seconds=_CHECK_SECONDS, retries=False)
        self._public = S3Bucket(public, threads=1, stall_seconds=STALL_SECONDS) if public else None
        self._most_bytes = most_bytes
        self._senders = PartSenders(_SENDERS)
        self._uploads = Uploads()

    def prepare(self) -> None:
        """Make the bucket where it is missing, and see that we may write to it.

        Raises ``S3RefusedError`` where the store refuses, ``BlobStoreUnavailableError`` where it is away.
        """
        if not self._checked.exists():
            self._bucket.make()
            _log.info("the bucket was made", extra={"action": "bucket_made"})
        self._bucket.probe()
        self._bucket.probe_upload()

    def begin(self, key: str, *, declared_bytes: int | None) -> S3BlobWriter:
        """Start an upload."""
        part_bytes = part_bytes_for(self._most_bytes if declared_bytes is None else declared_bytes)
        return S3BlobWriter(self._bucket, key, part_bytes, self._senders, self._uploads)

    def open(self, key: str) -> BinaryIO:
        """The blob as a seekable file; raises ``BlobMissingError``."""
        return cast(BinaryIO, S3BlobReader(self._bucket, key))

    def direct_url(self, key: str, *, filename: str) -> str | None:
        """A presigned address at which people reach the store, if they do."""
        if self._public is None:
            return None
        return self._public.signed_url(key, filename=filename, seconds=_DIRECT_SECONDS)

    def delete(self, key: str) -> None:
        """Remove the blob; fine if it is gone already."""
        self._bucket.delete(key)

    def keys_older_than(self, age_seconds: float) -> Iterator[str]:
        """Keys of blobs stored at least ``age_seconds`` ago, by the store's clock and ours."""
        limit = datetime.now(UTC) - timedelta(seconds=age_seconds)
        for kind in BLOB_KINDS:
            for key, stored_at in self._bucket.keys(f"{kind}/"):
                if stored_at is not None and stored_at <= limit:
                    yield key

    def sweep_unfinished(self) -> None:
        """Abort the uploads that nobody goes on with: ours that failed, and others' that are very old."""
        for key, upload_id in self._uploads.to_abort():
            self._abort(key, upload_id)
        limit = datetime.now(UTC) - timedelta(seconds=_UNFINISHED_SECONDS)
        for key, upload_id, begun_at in self._bucket.uploads():
            if begun_at is not None and begun_at <= limit and not self._uploads.is_ours(upload_id):
                self._abort(key, upload_id)

    def check(self) -> None:
        """Raise ``BlobStoreUnavailableError`` when the store or the bucket is away; within seconds."""
        if not self._checked.exists():
            raise BlobStoreUnavailableError("the S3 store has lost its bucket")

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._bucket.abort_upload(key, upload_id)
        except BlobStoreFullError as error:  # Nothing is stored here; whatever it means, not now.
            raise BlobStoreUnavailableError(str(error)) from error
        self._uploads.ended(upload_id)
        _log.info("an unfinished upload was aborted", extra={"action": "upload_aborted", "blob": key})
