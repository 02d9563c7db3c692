"""Sending the output: zip it while it travels, hash it on the way, compare with what the server stored.

An attempt enters from a thread of its own, after the container has ended. After trouble between the server
and us the whole is zipped and sent again; the zip is never on the disk and never whole in memory, unless it
is small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import TypeVar

from archives.errors import EmptyOutputError, OutputInvalidError, OutputTooLargeError
from archives.limits import OutputLimits
from archives.packing import Packing, pack_directory
from consumer.node.fetching import disk_failure
from consumer.outside.backoff import persist
from consumer.outside.calls import Calls
from consumer.outside.errors import AbandonedError, CallRefusedError, PreventedError, ServerAwayError
from contracts.messages import BlobFacts, Lease
from contracts.problems import ProblemCode
from contracts.reasons import ReasonCode

# An output below this is sent in one piece with its length, which spares small tasks a dozen writes on a
# socket.
WHOLE_BYTES = 512 * 1024
_LOCKED_OUT = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_Result = TypeVar("_Result")


def deliver(server: Calls, lease: Lease, output: Path, abandoned: Event) -> tuple[BlobFacts, list[str]]:
    """Send the directory ``output``; returns what the server stored, and notes on what was left out.

    Raises ``PreventedError``, ``AbandonedError``, ``StaleLeaseError``.
    """
    try:
        send = keyless_is_away(lambda: _send(server, lease, output, abandoned))
        return persist(send, abandoned.wait)
    except EmptyOutputError as error:
        raise PreventedError(
            ReasonCode.NO_OUTPUT,
            f"The model ended well but wrote nothing to {lease.mounts.output}; it must write its result "
            "there, or be registered with allow_empty_output.",
        ) from error
    except OutputTooLargeError as error:
        raise PreventedError(ReasonCode.OUTPUT_TOO_LARGE, str(error)) from error
    except OutputInvalidError as error:
        raise PreventedError(ReasonCode.OUTPUT_INVALID, str(error)) from error
    except CallRefusedError as error:
        code = ReasonCode.STORAGE_FAILED
        if error.code == ProblemCode.TOO_LARGE:
            code = ReasonCode.OUTPUT_TOO_LARGE
        raise PreventedError(code, f"The server does not take the output: {error.detail or error}") from error
    except OSError as error:
        raise disk_failure(error) from error


def keyless_is_away(call: Callable[[], _Result]) -> Callable[[], _Result]:
    """``call``, for which a server that does not know our key is away.

    A key that is replaced says nothing about the result: it is kept until this process, or its next life
    with another key, is let in again.
    """

    def guarded() -> _Result:
        try:
            return call()
        except CallRefusedError as error:
            if error.status in _LOCKED_OUT:
                raise ServerAwayError(str(error)) from error
            raise

    return guarded


def _send(server: Calls, lease: Lease, output: Path, abandoned: Event) -> tuple[BlobFacts, list[str]]:
    limits = OutputLimits(max_bytes=lease.limits.output_bytes, max_files=lease.limits.output_files)
    packing = pack_directory(output, limits, allow_empty=lease.allow_empty_output)
    counted = _Counted(packing, abandoned)
    beginning = b""
    for piece in counted:
        beginning += piece
        if len(beginning) > WHOLE_BYTES:
            break
    else:
        return _agreed(server.put_output(lease, beginning), counted), packing.notes
    return _agreed(server.put_output(lease, counted.after(beginning)), counted), packing.notes


def _agreed(stored: BlobFacts, counted: _Counted) -> BlobFacts:
    if stored != counted.facts():
        raise ServerAwayError("the server stored something other than what was sent")
    return stored


class _Counted:
    """The zip's pieces, counted and hashed as they pass, once."""

    def __init__(self, packing: Packing, abandoned: Event) -> None:
        self._packing = packing
        self._abandoned = abandoned
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces():
            if self._abandoned.is_set():
                raise AbandonedError("the output is no longer wanted")
            self._digest.update(piece)
            self._size_bytes += len(piece)
            yield piece

    def after(self, beginning: bytes) -> Iterator[bytes]:
        """``beginning``, which has been taken and counted already, and all that follows."""
        yield beginning
        yield from self

    def facts(self) -> BlobFacts:
        """Size and hash of what has passed."""
        return BlobFacts(size_bytes=self._size_bytes, sha256=self._digest.hexdigest())

    def _pieces(self) -> Iterator[bytes]:
        try:
            yield from self._packing
        except OSError as error:
            # Raised as it is, the HTTP client would take it for a failing connection.
            raise disk_failure(error) from error
