"""The worker protocol over HTTP: one method for each call, typed values in and out, typed errors.

Every thread of a slot enters. Time-outs are bounded, connections are kept alive and shared. A call is tried
once: who calls decides whether and how long to try again (``backoff.persist``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import urllib3

from consumer.metrics import count_server_error
from consumer.outside.calls import REPORT_SECONDS
from consumer.outside.connections import open_pool
from consumer.outside.errors import CallRefusedError, KeyRefusedError, ServerAwayError, StaleLeaseError
from consumer.outside.worker_key import WorkerKey
from contracts.messages import (
    BlobFacts,
    ClaimRequest,
    Completion,
    Failure,
    Heartbeat,
    HeartbeatAnswer,
    Lease,
    MessageError,
    Withdrawal,
)
from contracts.names import LEASE_TOKEN_HEADER, REQUEST_ID_HEADER
from contracts.nodes import NodeOrders, NodeReport
from contracts.problems import ProblemCode

# Connecting to a machine that is there takes milliseconds.
CONNECT_SECONDS = 5.0
# A call that the server does not hold on purpose; and the longest silence in the middle of a transfer.
ANSWER_SECONDS = 30.0
# How long a server may take to store what was sent, after the last byte.
STORE_SECONDS = 300.0
# What a read from the server's stream returns at most.
CHUNK_BYTES = 256 * 1024
_Message = TypeVar("_Message", Lease, HeartbeatAnswer, BlobFacts, NodeOrders)
_OURS = {"User-Agent": "inferenceserver-consumer"}
_TROUBLE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT}


@dataclass(frozen=True, kw_only=True)
class OwnKey:
    """Our own key as the server knows it; ``models`` null: it may take the tasks of all."""

    name: str
    role: str
    models: tuple[str, ...] | None


class Server:
    """The private API as one worker sees it."""

    def __init__(
        self, url: str, key: str | WorkerKey, *, ca: Path | None = None, proxy: str | None = None
    ) -> None:
        self._url = url
        self._key = WorkerKey(key) if isinstance(key, str) else key
        self._pool = open_pool(url, ca=ca, proxy=proxy)

    def own_key(self) -> OwnKey:
        """Whose key ours is."""
        with self._call("GET", "/v1/keys/self") as response:
            answer = _parsed(response)
        try:
            models = answer.get("models")
            return OwnKey(
                name=str(answer["name"]),
                role=str(answer["role"]),
                models=None if models is None else tuple(map(str, models)),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ServerAwayError("this is no answer of an inference server") from error

    def has_worker_routes(self) -> bool:
        """Whether workers are let in at this address: from outside only where an operator wants it."""
        try:
            with self._call("GET", "/v1/leases/none/input"):
                return True
        except CallRefusedError as error:
            # Behind the door, there is something wrong with the request.
            return error.code != ProblemCode.NOT_FOUND
        except StaleLeaseError:
            return True

    def claim(self, request: ClaimRequest) -> Lease | None:
        """Wait for a task; None when there was none in ``request.wait_seconds``."""
        answer = self._json(
            "POST", "/v1/leases", body=request.to_json(), seconds=request.wait_seconds + ANSWER_SECONDS
        )
        return None if answer is None else _understood(Lease, answer)

    def withdraw(self, withdrawal: Withdrawal) -> bool:
        """Have the claim that is held for a slot answered at once; false where none was found."""
        answer = self._json("POST", "/v1/leases/withdraw", body=withdrawal.to_json())
        return bool(answer == {"withdrawn": True})

    def heartbeat(self, lease: Lease, beat: Heartbeat) -> HeartbeatAnswer:
        """Renew the lease; the server holds the answer up to ``beat.wait_seconds``."""
        path = f"/v1/leases/{lease.lease_id}/heartbeat"
        # Shorter than usual: after a stalled call the lease must still have time for another.
        seconds = beat.wait_seconds + 5.0
        return _understood(HeartbeatAnswer, self._json("POST", path, lease, beat.to_json(), seconds=seconds))

    def append_log(self, lease: Lease, offset: int, piece: bytes) -> int:
        """Send a piece of the log that begins at ``offset``; returns how many bytes are stored now."""
        headers = {"Content-Type": "application/octet-stream"}
        path = f"/v1/leases/{lease.lease_id}/logs?offset={offset}"
        with self._call("POST", path, lease, body=piece, headers=headers) as response:
            answer = _parsed(response)
        try:
            return int(answer["log_bytes"])
        except (KeyError, TypeError, ValueError) as error:
            raise ServerAwayError("the server's answer to a log makes no sense") from error

    def open_input(self, lease: Lease) -> Iterator[bytes]:
        """The input's zip, piece by piece; raises ``ServerAwayError`` when it ends early."""
        return self._download(f"/v1/leases/{lease.lease_id}/input", lease)

    def open_content(self, lease: Lease) -> Iterator[bytes]:
        """The zip of the model's static content, piece by piece."""
        return self._download(f"/v1/leases/{lease.lease_id}/content", lease)

    def put_output(self, lease: Lease, body: bytes | Iterable[bytes]) -> BlobFacts:
        """Store the output's zip, an iterable as it comes (chunked); returns what the server stored."""
        path = f"/v1/leases/{lease.lease_id}/output"
        headers = {"Content-Type": "application/zip"}
        with self._call("PUT", path, lease, body=body, headers=headers, seconds=STORE_SECONDS) as response:
            return _understood(BlobFacts, _parsed(response))

    def complete(self, lease: Lease, completion: Completion) -> None:
        """Commit the stored output."""
        self._json("POST", f"/v1/leases/{lease.lease_id}/complete", lease, completion.to_json())

    def fail(self, lease: Lease, failure: Failure) -> None:
        """Say that the attempt is over without an output."""
        self._json("POST", f"/v1/leases/{lease.lease_id}/fail", lease, failure.to_json())

    def report(self, node: str, report: NodeReport, seconds: float = REPORT_SECONDS) -> NodeOrders:
        """Tell of the node; the answer says what is wanted of it."""
        path = f"/v1/nodes/{node}/report"
        return _understood(NodeOrders, self._json("POST", path, body=report.to_json(), seconds=seconds))

    def open_node_content(self, node: str, sha256: str) -> Iterator[bytes]:
        """The zip of a model's static content, piece by piece, before any task asks for it."""
        return self._download(f"/v1/nodes/{node}/content/{sha256}")

    def _json(
        self,
        method: str,
        path: str,
        lease: Lease | None = None,
        body: dict[str, Any] | None = None,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> Any:
        headers = {"Content-Type": "application/json"}
        encoded = json.dumps(body).encode()
        with self._call(method, path, lease, body=encoded, headers=headers, seconds=seconds) as response:
            return None if response.status == HTTPStatus.NO_CONTENT else _parsed(response)

    def _download(self, path: str, lease: Lease | None = None) -> Iterator[bytes]:
        with self._call("GET", path, lease) as response:
            # urllib3 compares what came with Content-Length and raises when a body ends early.
            yield from response.stream(CHUNK_BYTES, decode_content=False)

    @contextmanager
    def _call(
        self,
        method: str,
        path: str,
        lease: Lease | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """One request; what the server or the network finds wrong with it is raised as one of our errors."""
        about = {} if lease is None else {LEASE_TOKEN_HEADER: str(lease.token)}
        if lease is not None and lease.request_id is not None:
            # The id of the request that brought the task goes on through the server's log of this call.
            about[REQUEST_ID_HEADER] = lease.request_id
        key = self._key.text
        try:
            response = self._pool.request(
                method,
                self._url + path,
                body=body,
                headers={"Authorization": f"Bearer {key}", **_OURS, **about, **(headers or {})},
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
                preload_content=False,
                redirect=False,
            )
            try:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    problem = _problem(response)
                    if isinstance(problem, KeyRefusedError) and self._key.renewed_since(key):
                        problem = ServerAwayError("the worker's key has just been renewed")
                    if isinstance(problem, ServerAwayError):
                        count_server_error()
                    raise problem
                yield response
            except BaseException:
                # Half-read: this connection cannot carry another request.
                response.close()
                raise
            else:
                response.drain_conn()
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            count_server_error()
            raise ServerAwayError(f"the server does not answer: {error}") from error


def _problem(response: urllib3.BaseHTTPResponse) -> Exception:
    """The error for an answer that is none, by its problem code where it has one."""
    try:
        document = json.loads(response.read(65536))
        code, detail = str(document["code"]), str(document.get("detail", ""))
        retryable = bool(document.get("retryable", False))
    except (ValueError, KeyError, TypeError, AttributeError):
        code, detail, retryable = "", "", False
    status = response.status
    if code == ProblemCode.STALE_LEASE:
        return StaleLeaseError(detail or "the lease is over")
    if code == ProblemCode.UNAUTHENTICATED:
        return KeyRefusedError(status, code, detail)
    if code == ProblemCode.CHECKSUM_MISMATCH:
        # The same word again would meet the same answer: what was stored has to be sent again first.
        return CallRefusedError(status, code, detail)
    if retryable or status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TROUBLE:
        return ServerAwayError(f"the server is in trouble: {status} {code} {detail}".rstrip())
    return CallRefusedError(status, code, detail)


def _parsed(response: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(response.read())
    except ValueError as error:
        raise ServerAwayError("the server's answer is not JSON") from error


def _understood(kind: type[_Message], value: object) -> _Message:
    try:
        return kind.from_json(value)
    except MessageError as error:
        raise ServerAwayError(f"the server's answer makes no sense: {error}") from error
