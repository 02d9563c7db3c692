"""Bringing a zip from the server to the node and unpacking it: a task's input, a model's static content.

Attempts enter from threads of their own. What arrives is compared with the lease's hash before it is
unpacked, and checked again by ``archives`` although the server checked it: this is where it would do harm.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

from archives.errors import ArchiveError
from archives.limits import ZipLimits
from archives.unpacking import unpack
from consumer.outside.backoff import persist
from consumer.outside.errors import AbandonedError, CallRefusedError, PreventedError, ServerAwayError
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode

# A blob that does not match its own hash so often in a row is damaged where it is stored.
_TRIES = 3


def fetch_and_unpack(
    open_stream: Callable[[], Iterator[bytes]],
    facts: BlobFacts,
    download: Path,
    destination: Path,
    abandoned: Event,
    invalid: ReasonCode,
) -> None:
    """Fetch a zip to ``download``, check it, unpack it to the empty ``destination``, and remove the zip.

    Raises ``PreventedError`` (with ``invalid`` when the zip itself is at fault), ``AbandonedError``,
    ``StaleLeaseError``.
    """
    try:
        _fetch(open_stream, facts, download, abandoned)
        unpack(download, destination, ZipLimits())
        download.unlink()
    except ArchiveError as error:
        raise PreventedError(invalid, str(error)) from error
    except OSError as error:
        raise disk_failure(error) from error


def disk_failure(error: OSError) -> PreventedError:
    """What a failing disk of the node means for an attempt."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return PreventedError(ReasonCode.NODE_FULL, "The node's disk is full; free some space there.")
    return PreventedError(ReasonCode.STORAGE_FAILED, f"The node's disk failed: {error}.")


def _fetch(
    open_stream: Callable[[], Iterator[bytes]], facts: BlobFacts, download: Path, abandoned: Event
) -> None:
    for _ in range(_TRIES):
        try:
            sha256 = persist(lambda: _receive(open_stream(), facts, download, abandoned), abandoned.wait)
        except CallRefusedError as error:
            raise PreventedError(
                ReasonCode.STORAGE_FAILED, f"The server does not hand out the zip: {error.detail or error}"
            ) from error
        if sha256 == facts.sha256:
            return
    raise PreventedError(
        ReasonCode.STORAGE_FAILED, "The zip that the server hands out does not match its recorded SHA-256."
    )


def _receive(stream: Iterator[bytes], facts: BlobFacts, download: Path, abandoned: Event) -> str:
    digest = hashlib.sha256()
    left = facts.size_bytes
    with download.open("wb") as file:
        for piece in stream:
            if abandoned.is_set():
                raise AbandonedError("the download is no longer wanted")
            left -= len(piece)
            if left < 0:
                raise ServerAwayError("the server sends more than it said")
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
