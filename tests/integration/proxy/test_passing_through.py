"""One id for a request, logs without secrets, answers as they grow, and clients that leave."""

from __future__ import annotations

import json
import re

import pytest
import requests

from tests.integration.proxy.running_proxy import Proxy
from tests.integration.public_api.public_api_processes import Handler, Upstream
from tests.rig.polling import eventually


@pytest.mark.parametrize(
    ("offered", "is_kept"),
    [
        ("my-request-1", True), ("a" * 64, True), (None, False), ("short", False), ("a" * 65, False),
        ("not well-formed!", False), ("my-request-1,my-request-2", False),
    ],
)  # fmt: skip
def test_a_request_has_one_id_from_here_on(
    proxy: Proxy, upstream: Upstream, offered: str | None, is_kept: bool
) -> None:
    # when
    answer = proxy.get("/v1/models", headers={} if offered is None else {"X-Request-Id": offered})

    # then the client, the upstream and the log know it by the same id, which is well-formed everywhere
    request_id = answer.headers["x-request-id"]
    assert (request_id == offered) == is_kept
    assert re.fullmatch(r"[A-Za-z0-9_-]{8,64}", request_id)
    assert upstream.last.headers["x-request-id"] == request_id
    eventually(lambda: request_id in str(proxy.access_log()[-1:]), 5, "the log names it")


def test_an_upstream_that_names_the_id_too_does_not_double_it(proxy: Proxy, upstream: Upstream) -> None:
    # given
    upstream.on_json("GET", "/v1/models", 200, {}, X_Request_Id="my-request-1")

    # when / then
    assert (
        proxy.get("/v1/models", headers={"X-Request-Id": "my-request-1"}).headers["x-request-id"]
        == "my-request-1"
    )


def test_the_log_holds_no_secret(proxy: Proxy, upstream: Upstream) -> None:
    # given
    upstream.on_json(
        "GET", "/v1/x", 302, {}, Location="https://store/x?X-Amz-Signature=s3cret", Set_Cookie="s3cret"
    )
    secret = {
        "Authorization": "Bearer s3cret", "X-API-Key": "s3cret", "X_API_KEY": "s3cret", "Cookie": "a=s3cret",
        "Idempotency-Key": "s3cret", "X-Auth-Token": "s3cret",
    }  # fmt: skip

    # when
    answer = proxy.get("/v1/x?key=s3cret&X-Amz-Signature=s3cret", headers=secret)
    upstream.on("GET", "/v1/broken", lambda handler: handler.cut())
    broken = proxy.get("/v1/broken?key=s3cret", headers=secret)

    # then
    ids = {answer.headers["x-request-id"], broken.headers["x-request-id"]}
    eventually(lambda: all(i in str(proxy.access_log()) for i in ids), 5, "both are logged")
    line = next(line for line in proxy.access_log() if answer.headers["x-request-id"] in str(line))
    assert (line["request"]["uri"], line["status"], line["request"]["method"]) == ("/v1/x", 302, "GET")
    assert "s3cret" not in json.dumps(proxy.log())


def test_a_log_is_followed_as_it_grows(proxy: Proxy, upstream: Upstream) -> None:
    # given an upstream that writes a line and goes on only when the client has read it
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(3):
            handler.wfile.write(b"5\r\nline\n\r\n")
            assert eventually(lambda: bool(heard), 10, "the client has read the line")
            heard.clear()
        handler.wfile.write(b"0\r\n\r\n")

    heard: list[int] = []
    upstream.on("GET", "/v1/logs", answer)

    # when
    with requests.get(
        f"{proxy.url}/v1/logs", stream=True, verify=str(proxy.root_certificate), timeout=20
    ) as got:
        heard.extend(len(piece) for piece in got.iter_content(5))

    # then
    assert got.status_code == 200


def test_a_waiting_client_that_leaves_is_noticed_behind_the_proxy(proxy: Proxy, upstream: Upstream) -> None:
    # given
    upstream.on("GET", "/v1/wait", lambda handler: None if handler.hold_until_gone(20) else handler.cut())
    with proxy.connect() as sock:
        sock.sendall(b"GET /v1/wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: bool(upstream.seen), 10, "the upstream is asked")

    # when it is gone / then
    assert upstream.last.gone.wait(5)
