"""A request body that is streamed from a file: raw, or as the file part of a multipart form.

The transport sends it; memory stays at one chunk however large the file is. Nothing here knows of routes.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from inference_server_client.errors import InputError

# A socket's time limit counts per chunk; small enough that a slow line sends one within it.
CHUNK_BYTES = 64 * 1024

OnProgress = Callable[[int], None]


class UploadBody:
    """Iterates over prefix, file and suffix; each iteration starts at the beginning again.

    ``sha256`` is that of the file's bytes as they were last sent. ``on_progress`` is told how many of
    them have been handed to the connection, and 0 when sending starts (again).
    """

    content_type = "application/zip"

    def __init__(
        self,
        stream: BinaryIO,
        *,
        prefix: bytes = b"",
        suffix: bytes = b"",
        on_progress: OnProgress | None = None,
    ) -> None:
        self._stream = stream
        self._prefix, self._suffix = prefix, suffix
        self._on_progress = on_progress or (lambda _sent: None)
        self._hash = hashlib.sha256()
        self._start = 0
        self.file_bytes: int | None = None
        try:
            self._start = stream.tell()
            self.file_bytes = stream.seek(0, io.SEEK_END) - self._start
            stream.seek(self._start)
        except (OSError, io.UnsupportedOperation):
            # A pipe: its length is unknown and it can be read once only.
            self.file_bytes = None
        if self.file_bytes == 0:
            raise InputError("The file to send is empty.")
        self.sent_bytes = 0

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again from the start."""
        return self.file_bytes is not None

    @property
    def total_bytes(self) -> int | None:
        """Length of the whole body, None when unknown."""
        return None if self.file_bytes is None else len(self._prefix) + self.file_bytes + len(self._suffix)

    @property
    def complete(self) -> bool:
        """Whether all of the file has been handed to the connection; known only where its length is."""
        return self.file_bytes is not None and self.sent_bytes == self.file_bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file's bytes sent so far."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        self._hash = hashlib.sha256()
        self.sent_bytes = 0
        self._on_progress(0)
        try:
            if self.file_bytes is not None:
                self._stream.seek(self._start)
            if self._prefix:
                yield self._prefix
            while data := self._read():
                self._hash.update(data)
                yield data
                self.sent_bytes += len(data)
                self._on_progress(self.sent_bytes)
        except OSError as error:
            # Inside the HTTP library a file's error would look like the connection's, and be tried again.
            raise InputError(f"The file to send cannot be read: {error.strerror}.") from error
        if self.file_bytes is not None and self.sent_bytes != self.file_bytes:
            raise InputError("The file became shorter while it was being sent; nothing was started.")
        if self._suffix:
            yield self._suffix

    def _read(self) -> bytes:
        if self.file_bytes is None:
            return self._stream.read(CHUNK_BYTES)
        # A file that grows meanwhile is sent as long as it was announced.
        return self._stream.read(min(CHUNK_BYTES, self.file_bytes - self.sent_bytes))


class MultipartBody(UploadBody):
    """A form (RFC 7578) of text fields and one file named ``zip_file``."""

    def __init__(
        self, fields: Mapping[str, str], stream: BinaryIO, *, on_progress: OnProgress | None = None
    ) -> None:
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="zip_file"; filename="content.zip"\r\n'
            "Content-Type: application/zip\r\n\r\n"
        )
        suffix = f"\r\n--{boundary}--\r\n".encode()
        super().__init__(stream, prefix="".join(parts).encode(), suffix=suffix, on_progress=on_progress)
        self.content_type = f"multipart/form-data; boundary={boundary}"
