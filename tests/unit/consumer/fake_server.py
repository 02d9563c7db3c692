"""The private API in memory: what a worker was given and what it said, without a socket."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterable, Iterator

from consumer.outside.errors import ServerAwayError, StaleLeaseError
from contracts.messages import (
    BlobFacts,
    ClaimRequest,
    Completion,
    Failure,
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    Withdrawal,
)
from contracts.states import Phase


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def facts_of(body: bytes) -> BlobFacts:
    return BlobFacts(size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


class FakeServer:
    """``consumer.outside.server.Server`` for one lease at a time."""

    def __init__(self, input_zip: bytes) -> None:
        self.input = input_zip
        self.changed = threading.Condition()
        self.leases: list[Lease] = []
        self.phases: list[Phase] = []
        self.log = bytearray()
        self.output: bytes | None = None
        self.completion: Completion | None = None
        self.failure: Failure | None = None
        self.cancel_requested = False
        self.stale = False
        self.away = False
        self.claim_refusal: Exception | None = None
        self.damaged_puts = 0
        self.puts = 0
        self.withdrawals: list[Withdrawal] = []
        # Raised one after the other instead of taking a completion.
        self.refusals: list[Exception] = []

    def claim(self, request: ClaimRequest) -> Lease | None:
        self._answer()
        if self.claim_refusal is not None:
            raise self.claim_refusal
        with self.changed:
            self.changed.wait_for(lambda: self.leases or self.withdrawals, request.wait_seconds)
            return self.leases.pop() if self.leases else None

    def withdraw(self, withdrawal: Withdrawal) -> bool:
        self._answer()
        with self.changed:
            self.withdrawals.append(withdrawal)
            self.changed.notify_all()
        return True

    def heartbeat(self, lease: Lease, beat: Heartbeat) -> HeartbeatAnswer:
        self._answer(lease)
        with self.changed:
            self.phases.append(beat.phase)
            self.changed.notify_all()
        return HeartbeatAnswer(cancel_requested=self.cancel_requested, log_bytes=len(self.log))

    def append_log(self, lease: Lease, offset: int, piece: bytes) -> int:
        self._answer(lease)
        self.log += piece[max(0, len(self.log) - offset) :]
        return len(self.log)

    def open_input(self, lease: Lease) -> Iterator[bytes]:
        self._answer(lease)
        yield self.input

    def open_content(self, lease: Lease) -> Iterator[bytes]:
        self._answer(lease)
        yield self.input

    def put_output(self, lease: Lease, body: bytes | Iterable[bytes]) -> BlobFacts:
        self._answer(lease)
        whole = body if isinstance(body, bytes) else b"".join(body)
        self.puts += 1
        if self.damaged_puts:
            self.damaged_puts -= 1
            return facts_of(whole[:-1])
        self.output = whole
        return facts_of(whole)

    def complete(self, lease: Lease, completion: Completion) -> None:
        self._answer(lease)
        if self.refusals:
            raise self.refusals.pop(0)
        self.completion = completion

    def fail(self, lease: Lease, failure: Failure) -> None:
        self._answer(lease)
        self.failure = failure

    def _answer(self, lease: Lease | None = None) -> None:
        if self.away:
            raise ServerAwayError("away")
        if self.stale and lease is not None:
            raise StaleLeaseError("over")
