"""Hands out blobs: with length, tag and ranges, and never a whole one whose hash is not the recorded one.

Whoever asks for it with ``redirect=1`` is sent to the store itself instead, where people reach that.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import Any, BinaryIO

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import FileWrapper

from contracts.messages import BlobFacts
from contracts.problems import ProblemCode
from private_api.blobs.store import CHUNK_BYTES, BlobMissingError, BlobStore
from serving.problems import ProblemError

_log = logging.getLogger(__name__)

REDIRECT_FIELD = "redirect"


class CorruptBlobError(Exception):
    """A blob's bytes are not those that were stored; the answer is cut off before its end."""


def send_blob(
    blobs: BlobStore, key: str, facts: BlobFacts, *, filename: str, direct: bool = False
) -> Response:
    """Answer with a blob; honours ``Range``, ``If-Range`` and ``If-None-Match``.

    ``direct``: the caller would rather be sent to the store, if people reach it; see ``wants_redirect``.
    """
    if direct and (url := blobs.direct_url(key, filename=filename)) is not None:
        # The address opens the blob to whoever has it: it is kept by nobody, and logged nowhere.
        return Response(status=307, headers={"Location": url, "Cache-Control": "no-store"})
    try:
        file = blobs.open(key)
    except BlobMissingError as error:
        _log.error("a blob is missing", extra={"action": "blob_missing", "blob": key})
        raise ProblemError(
            ProblemCode.INTERNAL_ERROR, "The data is missing from the server's storage; tell its operator."
        ) from error
    response = Response(FileWrapper(file, CHUNK_BYTES), mimetype="application/zip")
    response.call_on_close(file.close)
    response.content_length = facts.size_bytes
    response.set_etag(facts.sha256)
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["X-Content-Type-Options"] = "nosniff"
    try:
        response.make_conditional(_conditions(), accept_ranges=True, complete_length=facts.size_bytes)
    except RequestedRangeNotSatisfiable:
        response.close()
        raise
    if response.status_code in {200, 206} and response.content_length == facts.size_bytes:
        # A part cannot be held against the hash of the whole; the client that assembles parts can.
        response.response = _verified(file, facts)
    return response


def wants_redirect() -> bool:
    """Whether the request says that its sender follows redirects; raises ``invalid_field`` for other words.

    Nobody is sent elsewhere without having asked for it: a client that does not follow would take the empty
    answer for the zip, and one that follows too eagerly would show its key to the store.
    """
    word = request.args.get(REDIRECT_FIELD, "0")
    if word not in {"0", "1"}:
        raise ProblemError(ProblemCode.INVALID_FIELD, f"{REDIRECT_FIELD} must be 0 or 1.")
    return word == "1" and request.method == "GET"


def _conditions() -> dict[str, Any]:
    """The request's environment, without a Range to ignore (RFC 9110): several parts, or unreadable."""
    environ = dict(request.environ)
    if request.range is None or request.range.units != "bytes" or len(request.range.ranges) != 1:
        environ.pop("HTTP_RANGE", None)
    return environ


def _verified(file: BinaryIO, facts: BlobFacts) -> Iterator[bytes]:
    """The file's bytes, of which the last chunk is held back until all of them have proved to be right."""
    digest = hashlib.sha256()
    held = b""
    size = 0
    with file:
        while chunk := file.read(CHUNK_BYTES):
            if held:
                yield held
            digest.update(chunk)
            size += len(chunk)
            held = chunk
    if size != facts.size_bytes or digest.hexdigest() != facts.sha256:
        raise CorruptBlobError(f"expected {facts.size_bytes} bytes with SHA-256 {facts.sha256}")
    yield held
