"""What a worker may say to the private API, as a type: the surface that attempts see.

``server.py`` provides it over HTTP. A trial of a model provides it with a folder (``consumer.trial.folder``),
so that an author sees what production does. Errors are those of ``errors.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

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
from contracts.nodes import NodeOrders, NodeReport

# A node that waits longer for the answer to a report tries again.
REPORT_SECONDS = 10.0


class Calls(Protocol):
    """The worker protocol: one method for each call, each tried once."""

    def claim(self, request: ClaimRequest) -> Lease | None:
        """Wait for a task; None when there was none in ``request.wait_seconds``."""
        ...

    def withdraw(self, withdrawal: Withdrawal) -> bool:
        """Have the claim that is held for a slot answered at once; false where none was found."""
        ...

    def heartbeat(self, lease: Lease, beat: Heartbeat) -> HeartbeatAnswer:
        """Renew the lease; the answer may be held up to ``beat.wait_seconds``."""
        ...

    def append_log(self, lease: Lease, offset: int, piece: bytes) -> int:
        """Send a piece of the log that begins at ``offset``; returns how many bytes are stored now."""
        ...

    def open_input(self, lease: Lease) -> Iterator[bytes]:
        """The input's zip, piece by piece."""
        ...

    def open_content(self, lease: Lease) -> Iterator[bytes]:
        """The zip of the model's static content, piece by piece."""
        ...

    def put_output(self, lease: Lease, body: bytes | Iterable[bytes]) -> BlobFacts:
        """Store the output's zip; returns what was stored."""
        ...

    def complete(self, lease: Lease, completion: Completion) -> None:
        """Commit the stored output."""
        ...

    def fail(self, lease: Lease, failure: Failure) -> None:
        """Say that the attempt is over without an output."""
        ...


class NodeCalls(Protocol):
    """What a node's parent process says, apart from any task."""

    def report(self, node: str, report: NodeReport, seconds: float = REPORT_SECONDS) -> NodeOrders:
        """Tell of the node; the answer says what is wanted of it."""
        ...

    def open_node_content(self, node: str, sha256: str) -> Iterator[bytes]:
        """The zip of a model's static content, piece by piece, before any task asks for it."""
        ...
