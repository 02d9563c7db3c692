"""The private API of one trial, as a folder: hands out two zips, keeps the log, the output and the last word.

It is one of the two providers of ``consumer.outside.calls.Calls``; an attempt cannot tell it from the server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from contracts.messages import (
    BlobFacts,
    ClaimRequest,
    Completion,
    Failure,
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    Progress,
    Withdrawal,
)

_CHUNK_BYTES = 256 * 1024


class Folder:
    """One lease's calls; ``directory`` exists and is empty. ``show`` is given the log as it comes."""

    def __init__(
        self, directory: Path, input_zip: Path, content_zip: Path | None, show: Callable[[bytes], None]
    ) -> None:
        self.log = directory / "log.txt"
        self.output = directory / "output.zip"
        self.progress: Progress | None = None
        self.completion: Completion | None = None
        self.failure: Failure | None = None
        self._input = input_zip
        self._content = content_zip
        self._show = show
        self.log.touch()

    def claim(self, request: ClaimRequest) -> Lease | None:  # noqa: ARG002 - The protocol's.
        """There is only the one lease, which was not claimed."""
        return None

    def withdraw(self, withdrawal: Withdrawal) -> bool:  # noqa: ARG002 - The protocol's.
        """There is no claim that would be held."""
        return False

    def heartbeat(self, lease: Lease, beat: Heartbeat) -> HeartbeatAnswer:  # noqa: ARG002 - The protocol's.
        """Keep the progress; nobody cancels."""
        self.progress = beat.progress or self.progress
        return HeartbeatAnswer(cancel_requested=False, log_bytes=self.log.stat().st_size)

    def append_log(self, lease: Lease, offset: int, piece: bytes) -> int:
        """Keep what is new, up to the model's limit."""
        stored = self.log.stat().st_size
        fresh = piece[max(0, stored - offset) :][: max(0, lease.limits.log_bytes - stored)]
        if fresh:
            with self.log.open("ab") as file:
                file.write(fresh)
            self._show(fresh)
        return stored + len(fresh)

    def open_input(self, lease: Lease) -> Iterator[bytes]:  # noqa: ARG002 - The protocol's.
        """The sample."""
        return _pieces(self._input)

    def open_content(self, lease: Lease) -> Iterator[bytes]:  # noqa: ARG002 - The protocol's.
        """The static content."""
        assert self._content is not None, "the lease has content"  # noqa: S101 - Both come from one plan.
        return _pieces(self._content)

    def put_output(self, lease: Lease, body: bytes | Iterable[bytes]) -> BlobFacts:  # noqa: ARG002
        """Keep the output's zip."""
        digest, size_bytes = hashlib.sha256(), 0
        with self.output.open("wb") as file:
            for piece in [body] if isinstance(body, bytes) else body:
                file.write(piece)
                digest.update(piece)
                size_bytes += len(piece)
        return BlobFacts(size_bytes=size_bytes, sha256=digest.hexdigest())

    def complete(self, lease: Lease, completion: Completion) -> None:  # noqa: ARG002 - The protocol's.
        """Keep the last word of a success."""
        self.completion = completion

    def fail(self, lease: Lease, failure: Failure) -> None:  # noqa: ARG002 - The protocol's.
        """Keep the last word of a failure."""
        self.failure = failure


def zip_facts(path: Path) -> BlobFacts:
    """Size and hash of a zip, as the server records them."""
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return BlobFacts(size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
