"""Fetches a zip into a file: goes on where a broken connection left off, and checks size and SHA-256.

Where the server's operator lets people reach its store, the bytes come from there, else from the server.

The task calls enter here with a route and the facts recorded for its bytes. The target appears only when
every byte is there and right; until then a ``PartFile`` beside it holds what has come so far.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import requests

from inference_server_client.errors import AnswerError, DirectWayError, InferenceServerError, IntegrityError
from inference_server_client.part_file import PartFile
from inference_server_client.results import BlobFacts
from inference_server_client.retries import is_worth_repeating
from inference_server_client.transport import Call, Transport

_CHUNK_BYTES = 256 * 1024

OnProgress = Callable[[int], None]


def download(
    transport: Transport, route: str, target: Path, expected: BlobFacts, on_progress: OnProgress | None = None
) -> None:
    """Fetch ``route`` into ``target``, replacing it; raises ``IntegrityError`` for wrong bytes."""
    with PartFile(target, expected.sha256) as part_file:
        part = _Part(part_file.stream, expected, on_progress or (lambda _received: None))
        try:
            is_doubtful = part.resume()
            is_doubtful |= _fetch(transport, route, part, redirectable=True)
            if not part.is_right() and is_doubtful:
                # An earlier run's remains may have been damaged by a crash, and something on the way to the
                # store may have answered in its place; neither gets a second chance.
                part.restart()
                _fetch(transport, route, part, redirectable=False)
            if not part.is_right():
                raise IntegrityError(
                    "What was downloaded does not match its recorded SHA-256; nothing was kept."
                )
        except IntegrityError:
            part_file.discard()
            raise
        part_file.keep()


def _fetch(transport: Transport, route: str, part: _Part, *, redirectable: bool) -> bool:
    """Fetch until every byte is there; whether any of them came around the server."""
    came_around = False

    def call() -> Call:
        query = {"redirect": 1} if redirectable else {}
        headers = part.range_headers()
        return Call(method="GET", path=route, query=query, headers=headers, redirectable=redirectable)

    def receive(response: requests.Response) -> None:
        nonlocal came_around
        came_around |= not response.url.startswith(transport.address.url + route)
        part.receive(response)

    while part.received_bytes < part.expected.size_bytes:
        before = part.received_bytes
        try:
            transport.perform(call, receive)
        except DirectWayError:
            # What has come that way is kept, and the server goes on from there.
            redirectable = False
        except InferenceServerError as error:
            # The attempts are counted per outage, not per download: whoever moves forward may go on.
            if part.received_bytes <= before or not is_worth_repeating(error):
                raise
    return came_around


class _Part:
    """What has come so far: a file, its length and its running hash."""

    def __init__(self, stream: BinaryIO, expected: BlobFacts, on_progress: OnProgress) -> None:
        self._stream = stream
        self.expected = expected
        self._on_progress = on_progress
        self._hash = hashlib.sha256()
        self.received_bytes = 0

    def resume(self) -> bool:
        """Take up what an earlier run left; whether there was anything."""
        while data := self._stream.read(_CHUNK_BYTES):
            self._hash.update(data)
            self.received_bytes += len(data)
        if self.received_bytes > self.expected.size_bytes:
            self.restart()
        self._on_progress(self.received_bytes)
        return self.received_bytes > 0

    def restart(self) -> None:
        """Forget all bytes."""
        self._stream.seek(0)
        self._stream.truncate()
        self._hash = hashlib.sha256()
        self.received_bytes = 0

    def range_headers(self) -> dict[str, str]:
        """What asks for the rest only (RFC 9110, 14.2); If-Range: should it have changed, all of it."""
        headers = {"Accept": "application/zip, application/problem+json"}
        if self.received_bytes:
            headers["Range"] = f"bytes={self.received_bytes}-"
            headers["If-Range"] = f'"{self.expected.sha256}"'
        return headers

    def receive(self, response: requests.Response) -> None:
        """Append the body of an answer; raises ``AnswerError`` where it ends early."""
        if response.status_code == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {self.received_bytes}-"):
                raise AnswerError("The server sent another part of the file than it was asked for.")
        else:
            self.restart()
        for data in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            self._stream.write(data)
            self._hash.update(data)
            self.received_bytes += len(data)
            self._on_progress(self.received_bytes)
            if self.received_bytes > self.expected.size_bytes:
                raise IntegrityError("The server sent more bytes than it had recorded; nothing was kept.")
        if self.received_bytes < self.expected.size_bytes:
            raise AnswerError("The download ended early.")

    def is_right(self) -> bool:
        """Whether length and hash are the recorded ones, with everything handed to the file system."""
        self._stream.flush()
        return (
            self.received_bytes == self.expected.size_bytes
            and self._hash.hexdigest() == self.expected.sha256.lower()
        )
