"""Upstreams that die, hang up, stop and come back."""

from __future__ import annotations

import http.client
import threading
from typing import Any

import pytest

from tests.integration.proxy.running_proxy import Proxy, free_ports
from tests.integration.proxy.stand_ins import serving
from tests.integration.public_api.public_api_processes import Handler
from tests.rig.polling import eventually


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_was_sent_is_never_sent_again(start_proxy: Any, method: str) -> None:
    # given two replicas, of which each hangs up when it has read a request
    def hang_up(handler: Handler) -> None:
        handler.read_body()
        handler.cut()

    with serving() as one, serving() as two:
        for replica in (one, two):
            replica.on(method, "/v1/tasks", hang_up)
        proxy = start_proxy(f"127.0.0.1:{one.server_port},127.0.0.1:{two.server_port}")

        # when
        answers = [
            proxy.ask(method, "/v1/tasks", body=b"x" * 1000, headers={"Idempotency-Key": str(n)})
            for n in range(6)
        ]

        # then each was seen once, and its client told that it is not known what became of it
        assert [answer.status for answer in answers] == [503] * 6
        assert answers[0].json()["code"] == "unavailable"
        keys = [seen.headers["idempotency-key"] for seen in one.seen + two.seen]
        assert sorted(keys) == [str(n) for n in range(6)]


def test_a_read_is_asked_of_another_replica(start_proxy: Any) -> None:
    # given
    with serving() as one, serving() as two:
        one.on("GET", "/v1/models", lambda handler: handler.cut())
        proxy = start_proxy(f"127.0.0.1:{one.server_port},127.0.0.1:{two.server_port}")

        # when / then
        def ask() -> bool:
            assert proxy.get("/v1/models").status == 200
            return bool(one.seen)

        # Chance decides whom Caddy asks of those who have as little to do.
        eventually(ask, 10, "the replica that hangs up is asked as well")


def test_a_dead_replica_costs_no_reader_anything_and_loses_no_upload(start_proxy: Any) -> None:
    # given two replicas, of which one has died and its death has not been noticed yet
    dead_port = free_ports(1)[0]
    with serving() as alive:
        proxy = start_proxy(f"127.0.0.1:{dead_port},127.0.0.1:{alive.server_port}")
        with serving(dead_port) as dying:
            eventually(lambda: proxy.get("/v1/models") and dying.seen, 10, "both serve")

        # when
        bodies = [bytes([65 + n]) * 300_000 for n in range(12)]
        answers = [proxy.ask("POST", "/v1/tasks", body=body) for body in bodies]
        reads = {proxy.get("/v1/models").status for _ in range(5)}

        # then each upload arrived whole, once; or its client, with an older Caddy, was told to send it again
        assert {answer.status for answer in answers} <= {200, 503}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status == 503)
        taken = [body for body, answer in zip(bodies, answers, strict=True) if answer.status == 200]
        assert [seen.body for seen in alive.seen if seen.method == "POST" and seen.complete] == taken
        assert reads == {200}

        # and once the death has been noticed, no upload meets it any more
        was_noticed(proxy)
        assert {proxy.ask("POST", "/v1/tasks", body=body).status for body in bodies} == {200}


def was_noticed(proxy: Proxy) -> None:
    """Wait until Caddy has looked after its upstreams again and found one dead."""

    def failures() -> int:
        return sum("health_checker" in str(line.get("logger")) for line in proxy.log())

    before = failures()
    eventually(lambda: failures() > before + 1, 10, "its death is noticed")


def test_while_nobody_is_there_it_says_so_and_it_recovers_by_itself(start_proxy: Any) -> None:
    # given
    port = free_ports(1)[0]
    proxy: Proxy = start_proxy(f"127.0.0.1:{port}")

    # when
    for_programs = proxy.ask("POST", "/v1/tasks", body=b"x" * 1000, headers={"X-Request-Id": "my-request-1"})
    for_people = proxy.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    # then
    assert (for_programs.status, for_people.status) == (503, 503)
    assert for_programs.headers["content-type"] == "application/problem+json"
    assert (for_programs.json()["code"], for_programs.json()["retryable"]) == ("unavailable", True)
    assert for_programs.headers["x-request-id"] == "my-request-1"
    assert for_people.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>Back in a moment</h1>" in for_people.body
    for answer in (for_programs, for_people):
        assert answer.headers["retry-after"] == "5"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers

    # and when it comes
    with serving(port):
        # then
        eventually(lambda: proxy.get("/v1/models").status == 200, 10, "it is served again")


def test_a_restart_of_the_only_upstream_is_waited_out(start_proxy: Any) -> None:
    # given
    port = free_ports(1)[0]
    proxy: Proxy = start_proxy(f"127.0.0.1:{port}")
    statuses: list[int] = []
    with serving(port):
        eventually(lambda: proxy.get("/v1/models").status == 200, 10, "it serves")
    was_noticed(proxy)
    asking = threading.Thread(
        target=lambda: statuses.append(proxy.ask("POST", "/x", body=b"x" * 1000).status)
    )

    # when it comes back while a client's request waits
    asking.start()
    # Not for long: Caddy looks for an upstream for five seconds in all, and sees a new one only in a while.
    asking.join(0.3)
    assert asking.is_alive()
    with serving(port) as back:
        asking.join(30)

        # then
        assert statuses == [200]
        assert len(back.seen) == 1


def test_an_answer_that_breaks_off_never_looks_whole(start_proxy: Any) -> None:
    # given one with a length, as all zips have: older versions of Caddy end one without as if it were whole
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(2**21))
        handler.end_headers()
        handler.wfile.write(b"x" * 2**20)
        handler.cut()

    with serving() as upstream:
        upstream.on("GET", "/v1/output", answer)
        proxy: Proxy = start_proxy(f"127.0.0.1:{upstream.server_port}")

        # when / then
        with pytest.raises((http.client.IncompleteRead, OSError)):
            proxy.get("/v1/output")
