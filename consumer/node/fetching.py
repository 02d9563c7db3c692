"""Bringing a zip from the server to the node and unpacking it: a task's input, a model's static content.

Attempts enter from threads of their own. What arrives is compared with the lease's hash before it is
unpacked, and checked again by ``archives`` although the server checked it: this is where it would do harm.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from archives.errors import ArchiveError, UnpackingAbandonedError
from archives.inspection import inspect_zip
from archives.limits import ZipLimits
from archives.unpacking import unpack
from consumer.node.usage import disk_shortage
from consumer.outside.backoff import persist
from consumer.outside.errors import AbandonedError, CallRefusedError, PreventedError, ServerAwayError
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode

# A blob that does not match its own hash so often in a row is damaged where it is stored.
_TRIES = 3
# How many files and how much of them is the operator's choice, made at the server's door; what a node has
# room for is looked at below. All the rest of what makes a zip unsafe is checked here once more.
_LIMITS = ZipLimits(max_entries=10_000_000, max_unpacked_bytes=2**50)


def nothing_to_spare(_enough: Callable[[], bool]) -> None:
    """Make no room: where nothing is cached."""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """How much of the node's disk has to stay free, and who makes room where it would not.

    ``relieve`` does until the function that it is given says that there is enough, as far as it can.
    """

    keep_free_bytes: int
    relieve: Callable[[Callable[[], bool]], None] = nothing_to_spare


def fetch_and_unpack(
    open_stream: Callable[[], Iterator[bytes]],
    facts: BlobFacts,
    download: Path,
    destination: Path,
    abandoned: Event,
    *,
    invalid: ReasonCode,
    allowance: Allowance,
) -> None:
    """Fetch a zip to ``download``, check it, unpack it to the empty ``destination``, and remove the zip.

    Raises ``PreventedError`` (with ``invalid`` when the zip itself is at fault, with ``node_full`` where
    there is no room for it), ``AbandonedError``, ``StaleLeaseError``.
    """
    try:
        _make_sure_of_room(download.parent, allowance, facts.size_bytes, 1)
        _fetch(open_stream, facts, download, abandoned)
        with download.open("rb") as file:
            found = inspect_zip(file, _LIMITS)
        _make_sure_of_room(destination, allowance, found.unpacked_bytes, found.entries)
        unpack(download, destination, _LIMITS, abandoned=abandoned.is_set)
        download.unlink()
    except UnpackingAbandonedError as error:
        raise AbandonedError("the zip is no longer wanted") from error
    except ArchiveError as error:
        raise PreventedError(invalid, str(error)) from error
    except OSError as error:
        raise disk_failure(error) from error


def disk_failure(error: OSError) -> PreventedError:
    """What a failing disk of the node means for an attempt."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return PreventedError(ReasonCode.NODE_FULL, "The node's disk is full; free some space there.")
    return PreventedError(ReasonCode.STORAGE_FAILED, f"The node's disk failed: {error}.")


def _make_sure_of_room(directory: Path, allowance: Allowance, more_bytes: int, more_files: int) -> None:
    def look() -> str | None:
        keep = allowance.keep_free_bytes
        return disk_shortage(directory, keep, more_bytes=more_bytes, more_files=more_files)

    shortage = look()
    if shortage is not None:
        allowance.relieve(lambda: look() is None)
        shortage = look()
    if shortage is not None:
        raise PreventedError(
            ReasonCode.NODE_FULL, f"{shortage}: free some space on the node, or send less at once."
        )


def _fetch(
    open_stream: Callable[[], Iterator[bytes]], facts: BlobFacts, download: Path, abandoned: Event
) -> None:
    damaged: list[str] = []

    def fetch() -> None:
        sha256 = _receive(open_stream(), facts, download, abandoned)
        if sha256 == facts.sha256:
            return
        damaged.append(sha256)
        if len(damaged) < _TRIES:
            raise ServerAwayError("the zip was damaged on its way")
        raise PreventedError(
            ReasonCode.STORAGE_FAILED,
            "The zip that the server hands out does not match its recorded SHA-256.",
        )

    try:
        persist(fetch, abandoned.wait)
    except CallRefusedError as error:
        raise PreventedError(
            ReasonCode.STORAGE_FAILED, f"The server does not hand out the zip: {error.detail or error}"
        ) from error


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
