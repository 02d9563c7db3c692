"""What the worker's HTTP client makes of a server's answers, over a socket that misbehaves on demand."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from consumer.outside.errors import CallRefusedError, KeyRefusedError, ServerAwayError, StaleLeaseError
from consumer.outside.server import Server
from contracts.messages import ClaimRequest, Heartbeat, SlotKind
from contracts.nodes import DiskFacts, MachineFacts, NodeOrders, NodeReport
from contracts.states import Phase
from tests.unit.consumer.consumer_leases import lease

CLAIM = ClaimRequest(node="n", slot="s", kinds=[SlotKind.CPU], wait_seconds=0)
BEAT = Heartbeat(phase=Phase.RUNNING, wait_seconds=0)
REPORT = NodeReport(
    instance="i",
    machine=MachineFacts(cpus=1.0, memory_bytes=1, architecture="x86_64", engine_version="1"),
    disk=DiskFacts(total_bytes=2, free_bytes=1, has_room=True),
    slots=[],
    gpus=[],
    labels={},
    images=[],
)


class Canned:
    """Accepts connections, reads a request, answers with the same bytes each time, and closes."""

    def __init__(self) -> None:
        self.answer = b""
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                connection.sendall(self.answer)


@pytest.fixture
def canned() -> Iterator[Canned]:
    canned = Canned()
    yield canned
    canned.close()


def answer(status: int, body: object) -> bytes:
    encoded = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(encoded)}\r\nConnection: close\r\n\r\n"
    return head.encode() + encoded


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (answer(409, {"code": "stale_lease", "detail": "over"}), StaleLeaseError),
        (answer(503, {"code": "unavailable", "retryable": True}), ServerAwayError),
        (answer(507, {"code": "storage_full", "retryable": True}), ServerAwayError),
        (answer(500, "no problem document"), ServerAwayError),
        (answer(429, {"code": "rate_limited", "retryable": True}), ServerAwayError),
        (answer(422, {"code": "checksum_mismatch", "retryable": True}), CallRefusedError),
        (answer(401, {"code": "unauthenticated", "detail": "key"}), KeyRefusedError),
        (answer(401, "a proxy's"), CallRefusedError),
        (answer(404, "html"), CallRefusedError),
        (answer(200, {"cancel_requested": "maybe"}), ServerAwayError),
        (b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{", ServerAwayError),
        (b"nonsense\r\n\r\n", ServerAwayError),
        (b"", ServerAwayError),
    ],
)
def test_every_answer_becomes_a_typed_error(canned: Canned, raw: bytes, error: type[Exception]) -> None:
    canned.answer = raw
    with pytest.raises(error):
        Server(canned.url, "key").heartbeat(lease(), BEAT)


def test_a_report_goes_to_the_nodes_own_address_and_brings_orders(canned: Canned) -> None:
    canned.answer = answer(
        200, {"report_seconds": 10.0, "draining": True, "wanted": [], "of a later release": 1}
    )
    orders = Server(canned.url, "key").report("node-1", REPORT)
    assert orders == NodeOrders(report_seconds=10.0, draining=True)
    assert canned.requests[0].startswith(b"POST /v1/nodes/node-1/report ")


def test_a_report_under_anothers_name_is_refused_for_good(canned: Canned) -> None:
    canned.answer = answer(409, {"code": "node_name_taken", "detail": "another"})
    with pytest.raises(CallRefusedError) as caught:
        Server(canned.url, "key").report("node-1", REPORT)
    assert caught.value.code == "node_name_taken"


def test_a_nodes_content_comes_in_pieces(canned: Canned) -> None:
    canned.answer = answer(200, "zip")
    pieces = Server(canned.url, "key").open_node_content("node-1", "0" * 64)
    assert b"".join(pieces) == b'"zip"'
    assert canned.requests[0].startswith(b"GET /v1/nodes/node-1/content/" + b"0" * 64)


def test_a_server_that_is_not_there_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerAwayError):
        Server(f"http://127.0.0.1:{port}", "key").claim(CLAIM)


def test_nothing_to_do_is_none(canned: Canned) -> None:
    canned.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert Server(canned.url, "key").claim(CLAIM) is None


def test_the_key_and_the_token_are_sent(canned: Canned) -> None:
    canned.answer = answer(200, {"cancel_requested": False, "log_bytes": 3})
    assert Server(canned.url, "key").heartbeat(lease(), BEAT).log_bytes == 3
    assert b"Authorization: Bearer key\r\n" in canned.requests[0]
    assert b"Lease-Token: 7\r\n" in canned.requests[0]


def test_a_server_that_pauses_while_it_stores_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a server that reads nothing for longer than connecting may take
    monkeypatch.setattr("consumer.outside.server.CONNECT_SECONDS", 0.1)
    body = b"x" * 16 * 1024**2
    stored = {"size_bytes": len(body), "sha256": "0" * 64}
    paused = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            paused.wait(0.5)
            left = len(body)
            _head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
            left -= len(rest)
            while left > 0:
                left -= len(connection.recv(1024**2))
            connection.sendall(answer(200, stored))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        # When a large output is sent, then it arrives
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", "key")
        assert server.put_output(lease(), body).size_bytes == len(body)
        thread.join(10)


def test_a_download_that_ends_early_is_noticed(canned: Canned) -> None:
    canned.answer = b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nabc"
    with pytest.raises(ServerAwayError):
        b"".join(Server(canned.url, "key").open_input(lease()))
