"""Takes in a zip with its fields: as a multipart form, or as the raw body with its fields in the query.

Bytes go straight to the blob store while they are hashed and counted; a blob is kept only if the caller of
``receive`` says so, and thrown away when anything goes wrong before.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flask import request
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from archives.errors import ArchiveError
from archives.inspection import inspect_zip
from contracts.messages import BlobFacts
from contracts.problems import ProblemCode
from private_api.blobs.store import BlobStoreFullError, BlobWriter, discard
from private_api.crashpoints import BLOB_STORED, UPLOAD_FINISHED, UPLOAD_STARTED
from private_api.http.services import Services
from private_api.http.strangeness import refuse_nul
from serving.bodies import fitting_length, read_body
from serving.problems import ProblemError

FILE_FIELD = "zip_file"
_MAX_FIELD_BYTES = 64 * 1024
# Boundaries, part headers and fields around the file.
_FORM_OVERHEAD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class StoredZip:
    """A zip that lies complete and inspected in the blob store."""

    key: str
    facts: BlobFacts


@dataclass(frozen=True)
class Received:
    """The fields that came along, query parameters included, and the zip if one was sent."""

    fields: dict[str, str]
    zip: StoredZip | None


FieldCheck = Callable[[dict[str, str]], None]


@contextlib.contextmanager
def receive(
    services: Services, kind: str, max_bytes: int, early: FieldCheck = lambda _fields: None
) -> Iterator[Received]:
    """Take in the request's body; the zip is deleted again if the block refuses it with a problem.

    Any other error may have come after the commit, so it leaves the zip to the sweeper, who asks whether a
    row refers to it.

    ``early`` sees the fields that are known before the file's first byte, so that a hopeless upload of
    many gigabytes is refused at once. Raises problems for everything that can be wrong with a body.
    """
    fields = request.args.to_dict()
    is_form = request.mimetype == "multipart/form-data"
    if not is_form:
        early(fields)
    try:
        stored = _store(services, kind, fields, max_bytes, early) if is_form or _has_body() else None
    except BlobStoreFullError as error:
        raise _storage_full() from error
    try:
        if stored is not None:
            _inspect(services, stored.key)
        yield Received(fields=fields, zip=stored)
    except ProblemError:
        if stored is not None:
            discard(services.blobs, [stored.key])
        raise


def _store(
    services: Services, kind: str, fields: dict[str, str], max_bytes: int, early: FieldCheck
) -> StoredZip | None:
    is_form = request.mimetype == "multipart/form-data"
    most_bytes = max_bytes + _FORM_OVERHEAD_BYTES if is_form else max_bytes
    key = f"{kind}/{secrets.token_hex(16)}"
    with services.blobs.begin(key, declared_bytes=fitting_length(request.environ, most_bytes)) as writer:
        if is_form:
            found = _receive_form(services, writer, fields, max_bytes, early)
        else:
            found = _receive_raw(services, writer, max_bytes)
        return _keep(services, writer, key) if found else None


def _has_body() -> bool:
    return bool(request.content_length) or "chunked" in request.headers.get("Transfer-Encoding", "").lower()


def _receive_raw(services: Services, writer: BlobWriter, max_bytes: int) -> bool:
    empty = True
    for chunk in read_body(request.environ, maximum_bytes=max_bytes):
        if empty:
            services.crashpoints.passing(UPLOAD_STARTED)
        writer.write(chunk)
        empty = False
    return not empty


def _receive_form(
    services: Services, writer: BlobWriter, fields: dict[str, str], max_bytes: int, early: FieldCheck
) -> bool:
    boundary = request.mimetype_params.get("boundary", "")
    if not 0 < len(boundary) <= 200:
        raise ProblemError(ProblemCode.BAD_REQUEST, "The multipart form names no usable boundary.")
    form = _Form(writer, fields, early, lambda: services.crashpoints.passing(UPLOAD_STARTED))
    try:
        with PushMultipartParser(boundary, max_segment_count=64, max_header_size=8192) as parser:
            for chunk in read_body(request.environ, maximum_bytes=max_bytes + _FORM_OVERHEAD_BYTES):
                for event in parser.parse(chunk):
                    form.take(event)
            for event in parser.parse(b""):
                form.take(event)
    except MultipartError as error:
        raise ProblemError(ProblemCode.BAD_REQUEST, f"The multipart form cannot be read: {error}.") from error
    if form.file_bytes > max_bytes:
        raise ProblemError(ProblemCode.TOO_LARGE, f"The zip file may have at most {max_bytes} bytes.")
    return form.file_bytes > 0


class _Form:
    """Sorts a form's pieces: fields into a dictionary, the one file into the writer."""

    def __init__(
        self, writer: BlobWriter, fields: dict[str, str], early: FieldCheck, on_first_byte: Callable[[], None]
    ) -> None:
        self._writer = writer
        self._fields = fields
        self._early = early
        self._on_first_byte = on_first_byte
        self._name = ""
        self._in_file = False
        self._seen_file = False
        self._value = bytearray()
        self.file_bytes = 0

    def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._in_file:
            if not self.file_bytes:
                self._on_first_byte()
            self._writer.write(bytes(event) if isinstance(event, bytearray) else event)
            self.file_bytes += len(event)
        else:
            self._value += event
            if len(self._value) > _MAX_FIELD_BYTES:
                raise ProblemError(ProblemCode.INVALID_FIELD, f"{self._name[:80]}: is too long.")

    def _begin(self, segment: MultipartSegment) -> None:
        self._name = segment.name
        # Some clients send the zip as a field without a file name; the field's name decides.
        self._in_file = segment.name == FILE_FIELD
        self._value.clear()
        if segment.filename is not None and not self._in_file:
            raise ProblemError(
                ProblemCode.INVALID_FIELD,
                f"{self._name[:80]}: a file is expected only in the field '{FILE_FIELD}'.",
            )
        if self._in_file:
            if self._seen_file:
                raise ProblemError(ProblemCode.INVALID_FIELD, f"{FILE_FIELD}: send one file, not several.")
            self._seen_file = True
            self._early(self._fields)

    def _end(self) -> None:
        if self._in_file:
            self._in_file = False
            return
        try:
            text = self._value.decode()
        except UnicodeDecodeError as error:
            raise ProblemError(ProblemCode.INVALID_FIELD, f"{self._name[:80]}: is not UTF-8 text.") from error
        refuse_nul(self._name, text)
        self._fields[self._name] = text


def _keep(services: Services, writer: BlobWriter, key: str) -> StoredZip:
    services.crashpoints.passing(UPLOAD_FINISHED)
    facts = writer.finish()
    services.crashpoints.passing(BLOB_STORED)
    return StoredZip(key=key, facts=facts)


def _inspect(services: Services, key: str) -> None:
    with services.blobs.open(key) as file:
        try:
            inspect_zip(file, services.zip_limits)
        except ArchiveError as error:
            raise ProblemError(ProblemCode.INPUT_INVALID, str(error)) from error


def _storage_full() -> ProblemError:
    return ProblemError(
        ProblemCode.STORAGE_FULL,
        "The server's storage is full, so the file was not kept; tell its operator, and try again later.",
        retry_after=60,
    )
