"""A blob on its way to an S3 store: hashed, cut into parts, and there for others only when all of it is.

The store makes one of these for each upload. What has arrived lies in memory until a part is full, so the
memory of all uploads is the sum of their parts: one each, and a few more that are on their way.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from contracts.messages import BlobFacts
from private_api.blobs.s3_bucket import S3Bucket, S3RefusedError
from private_api.blobs.store import BlobStoreFullError, BlobStoreUnavailableError

_log = logging.getLogger(__name__)

# At least 5 MiB is what S3 asks of every part but the last. Larger ones make fewer requests and cost memory.
_LEAST_PART_BYTES = 6 * 1024 * 1024
_MOST_PARTS = 10_000
_MEBIBYTE = 1024 * 1024


def part_bytes_for(most_bytes: int) -> int:
    """The size of an upload's parts, all the same (some stores insist), so that ``most_bytes`` fit. Pure."""
    needed = -(-most_bytes // _MOST_PARTS)
    return max(_LEAST_PART_BYTES, -(-needed // _MEBIBYTE) * _MEBIBYTE)


class PartSenders:
    """The few parts of all uploads that may travel while their uploads go on receiving."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="s3-part")

    def submit(self, part: _Part) -> Future[str] | None:
        """Send ``part`` meanwhile; None when all senders are busy, and the caller had better do it."""
        if not self._free.acquire(blocking=False):
            return None
        try:
            sent = self._threads.submit(part.send)
        except RuntimeError:  # The process ends.
            self._free.release()
            return None
        sent.add_done_callback(lambda _sent: self._free.release())
        return sent


class Uploads:
    """The multipart uploads that this process began and that have not ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._abandoned: dict[str, str] = {}

    def is_ours(self, upload_id: str) -> bool:
        """Whether somebody here still writes it, however long ago it began."""
        with self._lock:
            return upload_id in self._under_way

    def begun(self, upload_id: str) -> None:
        """It is under way."""
        with self._lock:
            self._under_way.add(upload_id)

    def ended(self, upload_id: str) -> None:
        """It was completed or aborted."""
        with self._lock:
            self._under_way.discard(upload_id)
            self._abandoned.pop(upload_id, None)

    def abandoned(self, upload_id: str, key: str) -> None:
        """Nobody goes on with it, but the store could not be told."""
        with self._lock:
            self._under_way.discard(upload_id)
            self._abandoned[upload_id] = key

    def to_abort(self) -> list[tuple[str, str]]:
        """Key and id of what was abandoned."""
        with self._lock:
            return [(key, upload_id) for upload_id, key in self._abandoned.items()]


class S3BlobWriter:
    """One upload: a small blob goes in one request, a larger one in parts."""

    def __init__(
        self, bucket: S3Bucket, key: str, part_bytes: int, senders: PartSenders, uploads: Uploads
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._part_bytes = part_bytes
        self._senders = senders
        self._uploads = uploads
        self._hash = hashlib.sha256()
        self._size = 0
        self._buffer = _Buffer(part_bytes)
        self._upload_id: str | None = None
        self._tags: list[str] = []
        self._on_its_way: Future[str] | None = None

    def write(self, data: bytes) -> None:
        """Append ``data``; raises as ``BlobWriter`` says."""
        self._hash.update(data)
        self._size += len(data)
        rest = memoryview(data)
        while rest:
            # A full part is sent only when more comes: the last one is for `finish`.
            if self._buffer.is_full:
                self._send_part()
            rest = rest[self._buffer.take(rest) :]

    def finish(self) -> BlobFacts:
        """Send what is left, and make the blob appear."""
        if self._upload_id is None:
            self._bucket.put(self._key, self._buffer.content())
        else:
            self._send_part()
            self._await_part()
            self._bucket.complete_upload(self._key, self._upload_id, self._tags)
            self._uploads.ended(self._upload_id)
            self._upload_id = None
        return BlobFacts(size_bytes=self._size, sha256=self._hash.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._upload_id is None:
            return
        with contextlib.suppress(BlobStoreUnavailableError, BlobStoreFullError):
            # A part that arrives after the abort might stay for ever.
            self._await_part()
        self._abort(self._upload_id, store_is_away=_is_away(error))

    def _abort(self, upload_id: str, *, store_is_away: bool) -> None:
        # A store that has just failed would keep the client waiting for its answer once more.
        if not store_is_away:
            try:
                self._bucket.abort_upload(self._key, upload_id)
            except (BlobStoreUnavailableError, BlobStoreFullError) as failure:
                _log.warning("an upload is left to the sweeper: %s", failure, extra={"blob": self._key})
            else:
                self._uploads.ended(upload_id)
                return
        self._uploads.abandoned(upload_id, self._key)

    def _send_part(self) -> None:
        if self._upload_id is None:
            self._upload_id = self._bucket.begin_upload(self._key)
            self._uploads.begun(self._upload_id)
        self._await_part()
        part = _Part(self._bucket, self._key, self._upload_id, len(self._tags) + 1, self._buffer)
        self._on_its_way = self._senders.submit(part)
        if self._on_its_way is None:
            self._tags.append(part.send())
            self._buffer.clear()
        else:
            # The sender alone holds the full one now, and lets it go when it is done.
            self._buffer = _Buffer(self._part_bytes)

    def _await_part(self) -> None:
        if self._on_its_way is not None:
            sent, self._on_its_way = self._on_its_way, None
            self._tags.append(sent.result())


class _Buffer:
    """Room for one part, outside Python's heap: pages are taken as bytes come, and given back at its end."""

    def __init__(self, size: int) -> None:
        self._room: mmap.mmap | None = None
        self._size = size
        self._filled = 0

    @property
    def is_full(self) -> bool:
        return self._filled == self._size

    def take(self, data: memoryview) -> int:
        """Keep as much of ``data`` as there is room for; how much that was."""
        if self._room is None:
            self._room = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        taken = min(len(data), self._size - self._filled)
        self._room[self._filled : self._filled + taken] = data[:taken]
        self._filled += taken
        return taken

    def content(self) -> memoryview:
        """What it holds, without a copy; to be let go before more is taken."""
        return memoryview(self._room or b"")[: self._filled]

    def clear(self) -> None:
        self._filled = 0


@dataclass(frozen=True)
class _Part:
    """A full buffer with its place in an upload."""

    bucket: S3Bucket
    key: str
    upload_id: str
    number: int
    buffer: _Buffer

    def send(self) -> str:
        """Bring it to the store; the store's tag of it."""
        return self.bucket.put_part(self.key, self.upload_id, self.number, self.buffer.content())


def _is_away(error: BaseException | None) -> bool:
    return isinstance(error, BlobStoreUnavailableError) and not isinstance(error, S3RefusedError)
