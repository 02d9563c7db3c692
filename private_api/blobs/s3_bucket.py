"""One bucket of an S3 store, call by call: the only file that speaks to the ``minio`` client.

The store's rooms enter here with keys and bytes. Every failure leaves as one of the errors of
``blobs.store``; that of a store which answered and refused carries its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.datatypes import ListMultipartUploadsResult, Part
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from minio.helpers import check_bucket_name
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.response import BaseHTTPResponse

from private_api.blobs.s3_connections import make_pool
from private_api.blobs.store import BlobMissingError, BlobStoreFullError, BlobStoreUnavailableError

# How the stores in use say that there is no more room: MinIO and its heirs, Ceph, Swift's quotas, others.
_FULL_CODES = frozenset(
    {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage",
     "InsufficientCapacity", "EntityTooLarge"}
)  # fmt: skip
_FULL_STATUS = 507
# How often bytes are sent until the store says what it keeps of them.
_TRIES_FOR_A_TAG = 3
# How urllib3 begins most sentences.
_CONNECTION_SHOWN = re.compile(r"^\S*(Connection|Pool)\(.*?\): ")
# What a store's own words may take up in our log.
_MAX_REASON = 300


class S3RefusedError(BlobStoreUnavailableError):
    """The store answered with an error; ``code`` is its own word, or ``HTTP`` and a status."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class S3Address:
    """Where the bucket is, and whose key opens it. ``endpoint`` and ``secure`` say host, port and scheme."""

    endpoint: str
    secure: bool
    region: str
    bucket: str
    access_key: str
    secret_key: str

    @property
    def url(self) -> str:
        """The store's address, for people."""
        return f"{'https' if self.secure else 'http'}://{self.endpoint}"


class S3Bucket:
    """See the module. Threads may share it."""

    def __init__(
        self, address: S3Address, *, threads: int, stall_seconds: float, retries: bool = True
    ) -> None:
        self._bucket = address.bucket
        self._where = f"the S3 store at {address.url}"
        self._client = Minio(
            address.endpoint,
            access_key=address.access_key,
            secret_key=address.secret_key,
            secure=address.secure,
            region=address.region,
            http_client=make_pool(size=threads, stall_seconds=stall_seconds, retries=retries),
        )
        # None until it matters, and then asked once in each process.
        self._tags_are_md5: bool | None = None

    def exists(self) -> bool:
        """Whether the bucket is there, asked in a way that is answered with a reason when it is not ours."""
        try:
            with self._translated():
                # A HEAD would be shorter, but its refusals have no body that says why.
                next(self._client.list_objects(self._bucket, prefix="inputs/"), None)
        except S3RefusedError as error:
            if error.code == "NoSuchBucket":
                return False
            raise
        return True

    def make(self) -> None:
        """Make the bucket; fine if another process was first."""
        try:
            with self._translated():
                self._client.make_bucket(self._bucket)
        except S3RefusedError as error:
            if error.code != "BucketAlreadyOwnedByYou":
                raise

    def probe(self) -> bool:
        """Store and remove a few bytes: are we allowed to, and are the store's tags MD5s?

        Those of most stores are; where a bucket is encrypted they are something else (Amazon S3 API
        reference, "Object", ETag).
        """
        data = memoryview(b"Is anybody there?")
        # Among the inputs, where the sweeper finds it should we die here.
        key = f"inputs/probe-{secrets.token_hex(8)}"
        are_md5 = self._tags_are_md5 = self._put(key, data) == _md5(data)
        self.delete(key)
        return are_md5

    def probe_upload(self) -> None:
        """Begin and abort an upload in parts: are we allowed to?

        At the first one OpenStack Swift makes a second bucket, which it denies to uploads beside that one for
        some seconds; so this comes before there are any.
        """
        key = f"inputs/probe-{secrets.token_hex(8)}"
        self.abort_upload(key, self.begin_upload(key))

    # The client's own `put_object` pulls from a stream and holds each part up to three times; ours is pushed
    # by a request's body. So these calls go one level lower, to methods that it keeps to itself. It sends a
    # hash of every body along (a signed SHA-256; over TLS, an MD5) against which a store checks what it got,
    # and not every store does. The tag that comes back shows it.

    def put(self, key: str, data: memoryview) -> str:
        """Store a whole blob; the store's tag of it."""
        return self._checked(self._put(key, data), data)

    def begin_upload(self, key: str) -> str:
        """Start a multipart upload; its id."""
        with self._translated():
            return self._client._create_multipart_upload(self._bucket, key, _headers())

    def put_part(self, key: str, upload_id: str, number: int, data: memoryview) -> str:
        """Store one part, counted from 1; the store's tag of it."""
        return self._checked(
            self._sent(
                lambda: self._client._upload_part(self._bucket, key, data, None, upload_id, number)  # type: ignore[arg-type]  # Any buffer serves.
            ),
            data,
        )

    def complete_upload(self, key: str, upload_id: str, tags: Sequence[str]) -> None:
        """Make the blob appear, all of it at once."""
        parts = [Part(number, tag) for number, tag in enumerate(tags, start=1)]
        with self._translated():
            result = self._client._complete_multipart_upload(self._bucket, key, upload_id, parts)
        # The store has to answer 200 before it knows how this ends; an error may come in the body.
        if not result.etag:
            raise S3RefusedError(f"{self._where} did not complete an upload", "IncompleteUpload")

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Throw the parts of an upload away; fine if it is gone."""
        try:
            with self._translated():
                self._client._abort_multipart_upload(self._bucket, key, upload_id)
        except S3RefusedError as error:
            if error.code not in {"NoSuchUpload", "NoSuchKey"}:
                raise

    def uploads(self) -> Iterator[tuple[str, str, datetime | None]]:
        """Key, id and beginning of every multipart upload that was neither completed nor aborted."""
        marker: str | None = None
        while True:
            # The client's own call sends an empty delimiter, with which Swift finds nothing.
            query: dict[str, Any] = {"uploads": "", "encoding-type": "url", "max-uploads": "1000"}
            if marker is not None:
                query["key-marker"] = marker
            with self._translated():
                answer = self._client._execute("GET", self._bucket, query_params=query)
                page = ListMultipartUploadsResult(answer)
            for upload in page.uploads:
                if upload.object_name and upload.upload_id:
                    yield upload.object_name, upload.upload_id, upload.initiated_time
            if not page.is_truncated or page.next_key_marker in {None, marker}:
                return
            marker = page.next_key_marker

    def get(self, key: str, offset: int = 0) -> BaseHTTPResponse:
        """The blob's bytes from ``offset`` on, unread; raises ``BlobMissingError``."""
        # A store may unpack what it takes for packed; these bytes are to come as they lie.
        headers: dict[str, Any] = {"Accept-Encoding": "identity"}
        with self._translated(key):
            answer = self._client.get_object(self._bucket, key, offset=offset, request_headers=headers)
        if offset and answer.status != 206:
            answer.close()
            answer.release_conn()
            raise self._refused("with a whole object where a part was asked for", "NoRange")
        return answer

    def delete(self, key: str) -> None:
        """Remove the blob; fine if it is gone."""
        with contextlib.suppress(BlobMissingError), self._translated(key):
            self._client.remove_object(self._bucket, key)

    def keys(self, prefix: str) -> Iterator[tuple[str, datetime | None]]:
        """Key and time of storing of every blob below ``prefix``, a page at a time."""
        with self._translated():
            for item in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if item.object_name:
                    yield item.object_name, item.last_modified

    def signed_url(self, key: str, *, filename: str, seconds: int) -> str:
        """An address that gives the blob to its bearer for a while; made here, the store is not asked."""
        return self._client.presigned_get_object(
            self._bucket,
            key,
            expires=timedelta(seconds=seconds),
            response_headers={
                "response-content-type": "application/zip",
                "response-content-disposition": f'attachment; filename="{filename}"',
            },
        )

    @contextlib.contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        """Whatever the client and its connections raise, as an error of the blob store."""
        try:
            yield
        except S3Error as error:
            code = error.code or "no code"
            if key is not None and code == "NoSuchKey":
                raise BlobMissingError(key) from error
            if code in _FULL_CODES or error.response.status == _FULL_STATUS:
                raise BlobStoreFullError("The server's object store is full.") from error
            raise self._refused(f"{code}: {error.message}", code) from error
        except (InvalidResponseError, ServerError) as error:
            status = error.status_code if isinstance(error, ServerError) else error._code
            if status == _FULL_STATUS:
                raise BlobStoreFullError("The server's object store is full.") from error
            raise self._refused(f"HTTP status {status}, not as S3 does", f"HTTP {status}") from error
        except (MinioException, HTTPError, OSError, ParseError) as error:
            raise BlobStoreUnavailableError(f"{self._where} failed: {_in_short(error)}") from error

    def _put(self, key: str, data: memoryview) -> str:
        return self._sent(
            lambda: self._client._put_object(self._bucket, key, data, _headers()).etag  # type: ignore[arg-type]  # Any buffer serves.
        )

    def _sent(self, send: Callable[[], str | None]) -> str:
        """The tag with which the store answers ``send``, which is repeated while there is none.

        Swift leaves it out where a write with a later time was faster: that of the same bytes, sent before
        on a connection that broke and heard only now. Either may be what it keeps, so it is asked once more.
        """
        for _ in range(_TRIES_FOR_A_TAG):
            with self._translated():
                etag = send()
            if etag:
                return etag
        raise self._refused("without a tag of what it keeps", "NoTag")

    def _checked(self, tag: str, data: memoryview) -> str:
        if self._tags_are_md5 is not False and tag != _md5(data) and (self._tags_are_md5 or self.probe()):
            raise self._refused("with another checksum than ours: bytes were damaged on the way", "BadDigest")
        return tag

    def _refused(self, reason: str, code: str) -> S3RefusedError:
        return S3RefusedError(f"{self._where} answered {reason[:_MAX_REASON]}", code)


def is_bucket_name(name: str) -> bool:
    """Whether S3 allows a bucket of this name."""
    try:
        check_bucket_name(name, strict=True)
    except ValueError:
        return False
    return True


def read_failure(error: Exception) -> BlobStoreUnavailableError:
    """What it means when the bytes of a blob stop coming."""
    return BlobStoreUnavailableError(f"the S3 store broke off: {_in_short(error)}")


def _headers() -> dict[str, Any]:
    return {"Content-Type": "application/zip"}


def _md5(data: memoryview) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _in_short(error: Exception) -> str:
    # The address in urllib3's own sentence may hold what is nobody's business; the reason inside does not.
    cause: object = error.reason if isinstance(error, MaxRetryError) else error
    text = _CONNECTION_SHOWN.sub("", " ".join(str(cause).split()))
    return f"{type(cause).__name__}: {text[:_MAX_REASON]}"
