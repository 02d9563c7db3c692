"""A blob in an S3 store as a file: read in order from one answer, from anywhere by ranged requests.

A small blob is taken whole when it is opened, so that looking into it costs one request. Of a larger one the
connection stays open while it is read; whoever stops early, or jumps, has it closed, because what is still
under way on it is of no use to anybody.
"""

from __future__ import annotations

import io
import logging
import time

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from private_api.blobs.s3_bucket import S3Bucket, S3RefusedError, read_failure
from private_api.blobs.s3_connections import is_stall
from private_api.blobs.store import CHUNK_BYTES, BlobStoreUnavailableError

_log = logging.getLogger(__name__)

# Up to here a blob is held in memory, and what is left of an answer read to its end, to keep the connection.
_SMALL_BYTES = CHUNK_BYTES
# A store that is restarted is back within seconds, and whoever reads need not notice.
_PAUSES_SECONDS = (0.2, 1.0, 3.0)
_PASSING_CODES = {"ServiceUnavailable", "SlowDown", "InternalError", "HTTP 500", "HTTP 502", "HTTP 503"}


class S3BlobReader(io.BufferedIOBase):
    """See the module. One thread at a time."""

    def __init__(self, bucket: S3Bucket, key: str) -> None:
        super().__init__()
        self._bucket = bucket
        self._key = key
        self._position = 0
        self._whole: bytes | None = None
        self._answer: BaseHTTPResponse | None = None
        self._answer_position = 0
        self._answer = bucket.get(key)
        self._size = int(self._answer.headers["Content-Length"])
        if self._size <= _SMALL_BYTES:
            self._whole = self._read_in_order(self._size)
            self._position = 0
            self._close_answer()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on reading at another offset; asks the store for nothing yet."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; raises ``BlobStoreUnavailableError``."""
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if self._whole is not None:
            data = self._whole[self._position : self._position + wanted]
            self._position += len(data)
            return data
        return self._read_in_order(wanted) if wanted else b""

    def close(self) -> None:
        """Give the connection back, or up."""
        self._close_answer()
        super().close()

    def _read_in_order(self, wanted: int) -> bytes:
        pieces: list[bytes] = []
        failures = 0
        while wanted:
            try:
                piece = self._read_some(wanted)
            except BlobStoreUnavailableError as error:
                self._close_answer()
                if failures == len(_PAUSES_SECONDS) or _is_final(error):
                    raise
                _log.info("reading is taken up again: %s", error, extra={"blob": self._key})
                time.sleep(_PAUSES_SECONDS[failures])
                failures += 1
                continue
            self._position += len(piece)
            self._answer_position = self._position
            wanted -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_some(self, wanted: int) -> bytes:
        answer = self._answer_here()
        try:
            piece = answer.read(wanted, decode_content=False)
        except (HTTPError, OSError) as error:
            raise read_failure(error) from error
        if not piece:
            # The length that it announced is enforced, so this is a store whose two answers differ in it.
            raise read_failure(EOFError(f"after {self._position} of {self._size} bytes"))
        return piece

    def _answer_here(self) -> BaseHTTPResponse:
        if self._answer is not None and self._answer_position != self._position:
            self._close_answer()
        if self._answer is None:
            self._answer = self._bucket.get(self._key, self._position)
            self._answer_position = self._position
        return self._answer

    def _close_answer(self) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if answer.length_remaining != 0:
            answer.close()
        answer.release_conn()


def _is_final(error: BlobStoreUnavailableError) -> bool:
    """Whether asking again is of no use: a store that hangs has had its time, one that refuses knows why."""
    if isinstance(error, S3RefusedError):
        return error.code not in _PASSING_CODES
    return is_stall(error.__cause__)
