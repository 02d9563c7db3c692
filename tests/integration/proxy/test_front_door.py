"""What the outside sees of the proxy, and what the upstream sees of the outside."""

from __future__ import annotations

import socket
import ssl
import subprocess
from typing import Any

import pytest
import requests

from tests.integration.proxy.running_proxy import Proxy, no_look
from tests.integration.public_api.public_api_processes import Upstream

POLICY = "default-src 'none'; frame-ancestors 'none'"


def test_localhost_is_served_by_an_authority_of_its_own(proxy: Proxy) -> None:
    # when
    answer = proxy.get("/v1/models")
    root = proxy.command("ca").stdout

    # then the root that the command prints is the one that clients verify with
    assert answer.status == 200
    assert root == proxy.root_certificate.read_text()
    with pytest.raises(ssl.SSLCertVerificationError):
        proxy.connect("localhost", ssl.create_default_context())


def test_a_client_that_names_no_host_is_served(proxy: Proxy) -> None:
    # when
    with proxy.connect(None, no_look()) as sock:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: close\r\n\r\n")

        # then
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_http_2_is_spoken_and_http_3_is_not_announced(proxy: Proxy) -> None:
    # given
    context = no_look()
    context.set_alpn_protocols(["h2", "http/1.1"])

    # when
    with proxy.connect("localhost", context) as sock:
        protocol = sock.selected_alpn_protocol()

    # then
    assert protocol == "h2"
    assert "alt-svc" not in proxy.get("/v1/models").headers


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(proxy: Proxy, version: ssl.TLSVersion) -> None:
    # given a client that would still speak it
    context = no_look()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version

    # when / then
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        proxy.connect("localhost", context)


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("server.example:8079", "server.example"),
        ("server.example", "server.example"),
        ("[::1]:8079", "[::1]"),
        ("10.1.2.3", "10.1.2.3"),
    ],
)
def test_http_is_sent_to_https_with_method_and_address_kept(proxy: Proxy, host: str, location: str) -> None:
    # when
    answer = requests.post(
        f"http://127.0.0.1:{proxy.http_port}/v1/tasks?a=b%2Fc", data=b"x", headers={"Host": host},
        allow_redirects=False, timeout=10,
    )  # fmt: skip

    # then
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{location}:{proxy.https_port}/v1/tasks?a=b%2Fc"
    assert "Server" not in answer.headers


def test_a_host_that_is_none_is_refused_in_the_clear(proxy: Proxy, upstream: Upstream) -> None:
    # when
    answer = requests.get(
        f"http://127.0.0.1:{proxy.http_port}/", headers={"Host": "a..b@c"}, allow_redirects=False, timeout=10
    )

    # then
    assert answer.status_code == 400
    assert upstream.seen == []


def test_every_answer_carries_the_security_headers_and_names_no_software(
    proxy: Proxy, upstream: Upstream
) -> None:
    # given
    upstream.on_json("GET", "/v1/models", 200, {}, Server="gunicorn", Via="1.1 x")

    for path in ("/v1/models", "/metrics"):
        # when
        headers = proxy.get(path).headers

        # then
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == POLICY
        assert not {"server", "via", "x-powered-by", "strict-transport-security"} & set(headers)


def test_a_page_keeps_its_own_policy(proxy: Proxy, upstream: Upstream) -> None:
    # given
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    upstream.on_json("GET", "/", 200, {}, Content_Security_Policy=policy)

    # when / then
    assert proxy.get("/").headers["content-security-policy"] == policy


@pytest.mark.parametrize(
    "status", [202, 204, 304, 401, 404, 409, 429, 500, 502, 503, 507, 550, 551, 552, 553, 554]
)
def test_a_status_passes_with_its_body_and_says_nothing_of_the_upstream_s_health(
    proxy: Proxy, upstream: Upstream, status: int
) -> None:
    # given
    document = {"detail": {"detail": "pending"}}
    upstream.on_json("GET", "/api/tasks/x", status, document, Retry_After="7")

    # when / then it is asked again and again
    for _ in range(5):
        answer = proxy.get("/api/tasks/x")
        assert (answer.status, answer.headers["retry-after"]) == (status, "7")
        assert status in {204, 304} or answer.json() == document
    assert proxy.get("/v1/models").status == 200
    assert len(upstream.seen) == 6


@pytest.mark.parametrize(
    "target",
    ["/metrics", "//metrics", "/metrics/", "/%6detrics", "/METRICS", "/metrics?x=1", "/x/../metrics"],
)
def test_metrics_are_not_for_the_outside(proxy: Proxy, upstream: Upstream, target: str) -> None:
    # when
    answer = proxy.get(target)

    # then
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
    assert upstream.seen == []


def test_the_upstream_is_told_who_asks_and_nothing_that_the_client_made_up(
    proxy: Proxy, upstream: Upstream
) -> None:
    # given
    forged = {
        "X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/x", "Forwarded": "for=8.8.8.8", "Via": "1.1 evil",
        "X-Original-URL": "/admin", "True-Client-IP": "8.8.8.8", "X-Real-IP": "8.8.8.8",
    }  # fmt: skip

    # when
    proxy.get("/v1/models", headers=forged, source="127.0.0.2")

    # then
    seen = upstream.last.headers
    assert seen["x-forwarded-for"] == "127.0.0.2"
    assert (seen["x-forwarded-proto"], seen["host"]) == ("https", f"localhost:{proxy.https_port}")
    assert seen["x-forwarded-host"] == f"localhost:{proxy.https_port}"
    names = {
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "true-client-ip",
        "x-forwarded-port",
        "x-forwarded-prefix",
    }
    assert not names & set(seen)
    assert "evil" not in str(seen)


def test_huge_headers_are_refused(proxy: Proxy, upstream: Upstream) -> None:
    # when
    answer = proxy.get("/v1/models", headers={"X-Huge": "x" * 100_000})

    # then
    assert answer.status == 431
    assert upstream.seen == []


def test_a_hundred_slow_heads_keep_nobody_out_and_are_ended(proxy: Proxy, upstream: Upstream) -> None:
    # given half of them stopped in TLS, half in the head of a request
    slow: list[Any] = []
    try:
        for _ in range(50):
            slow.append(socket.create_connection(("127.0.0.1", proxy.https_port), timeout=30))
            slow.append(proxy.connect())
            slow[-1].sendall(b"GET /v1/models HTTP/1.1\r\nHost: loc")

        # when
        answer = proxy.get("/v1/models")

        # then
        assert answer.status == 200
        for sock in slow:
            assert not ended(sock)
    finally:
        for sock in slow:
            sock.close()


def ended(sock: Any) -> bytes:
    """What the other side still says before it ends the connection, which it must do in time."""
    said = b""
    try:
        while piece := sock.recv(4096):
            said += piece
    except ConnectionResetError:
        pass
    return said


def test_it_runs_without_rights(proxy: Proxy) -> None:
    # when
    pid = proxy.container.attrs["State"]["Pid"]
    status = subprocess.run(["cat", f"/proc/{pid}/status"], capture_output=True, text=True, check=True).stdout

    # then
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status or "CapEff:\t0000000000000400" in status
