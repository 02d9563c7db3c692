"""What must not pass the relay, and what it must not bring along."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import requests
from public_api_processes import (
    Handler,
    PublicApi,
    Upstream,
    await_the_minutes_beginning,
    read_answer,
    wait_until,
)

HOST = b"Host: x\r\n"


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\n".encode() + HOST + b"\r\n"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/tasks/../models", "/v1/tasks/..%2fmodels", "/v1/tasks/%2e%2e/models", "/v1//models",
        "//v1/models", "/v1/models/", "/v1/models/%00", "/v1/models/a%2Fb", "/v1/models/a%5cb", "/V1/models",
        "/v1/tasks/" + "a" * 600, "/v1/tasks/a/b/c", "/v1/models/%zz", "/static/x", "/v1/leases",
        "/v1/models/..", "/v1/nodes/../keys", "/v1/models;x=1/y", "/openapi.json/",
    ],
)  # fmt: skip
def test_an_address_that_is_not_on_the_list_never_reaches_the_upstream(
    relay: PublicApi, stand_in: Upstream, target: str
) -> None:
    # when
    status, headers, body = relay.raw(get(target))

    # then
    assert status == 404
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["code"] == "not_found"
    assert stand_in.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models/a:b%20c", "/v1/models?limit=5&cursor=%2Fx%2F", "/v1/models/...", "/v1/models/%41",
        "/v1/tasks/0123456789abcdef0123456789abcdef/logs?offset=3", "/v1/models?a=1&a=2&b",
    ],
)  # fmt: skip
def test_an_address_reaches_the_upstream_exactly_as_it_came(
    relay: PublicApi, stand_in: Upstream, target: str
) -> None:
    # when
    status, _, _ = relay.raw(get(target))

    # then
    assert status == 200
    assert stand_in.last.target == target


def test_an_absolute_address_is_sent_on_as_a_path(relay: PublicApi, stand_in: Upstream) -> None:
    # when
    status, _, _ = relay.raw(get("http://elsewhere.example/v1/models?limit=1"))

    # then
    assert status == 200
    assert stand_in.last.target == "/v1/models?limit=1"


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("DELETE", "/v1/tasks", "GET, HEAD, POST, PUT"), ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/models", "GET, HEAD, POST"), ("TRACE", "/v1/models", "GET, HEAD, POST"),
        ("PUT", "/api/tasks/", "POST"), ("HEAD", "/api/tasks/x", "DELETE, GET"), ("POST", "/", "GET, HEAD"),
    ],
)  # fmt: skip
def test_a_method_that_is_not_on_the_list_is_refused(
    relay: PublicApi, stand_in: Upstream, method: str, target: str, allow: str
) -> None:
    # when
    response = requests.request(method, relay.url + target, timeout=10)

    # then
    assert response.status_code == 405
    assert response.headers["Allow"] == allow
    assert response.headers["Content-Type"] == "application/problem+json"
    assert stand_in.seen == []


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "bad_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400, "bad_request"),
        (
            b"PUT /v1/tasks HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
        (b"PUT /v1/tasks HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", 400, "bad_request"),
        (b"PUT /v1/tasks HTTP/1.1\r\nExpect: miracles\r\n\r\n", 400, "bad_request"),
        (b"POST /v1/keys HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", 413, "too_large"),
    ],
    ids=lambda value: value[:60].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_what_the_parser_refuses_is_a_problem_document(
    relay: PublicApi, request_bytes: bytes, status: int, code: str
) -> None:
    # when
    answered, headers, body = relay.raw(request_bytes)

    # then
    assert answered == status
    assert headers["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert (document["code"], document["status"]) == (code, status)
    assert requests.get(f"{relay.url}/healthz", timeout=10).status_code == 200


def test_only_listed_headers_pass_in_either_direction(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    stand_in.on_json(
        "GET", "/v1/models", 200, {}, ETag='"1"', X_Next_Offset="5", Set_Cookie="a=b",
        X_Powered_By="secret", Access_Control_Allow_Origin="*", Keep_Alive="timeout=1",
    )  # fmt: skip

    # when
    _, headers, _ = relay.raw(
        b"GET /v1/models HTTP/1.1\r\nHost: public.example\r\nAuthorization: Bearer k\r\nX_Api_Key: forged\r\n"
        b"X-API-Key: real\r\nCookie: a=b\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\n"
        b"Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nProxy: http://evil\r\nSCRIPT_NAME: /x\r\n"
        b"Lease-Token: 5\r\nTE: trailers\r\nPrefer: wait=1\r\nRange: bytes=0-1\r\nIf-None-Match: \"1\"\r\n"
        b"Idempotency-Key: i\r\nX-Request-Id: bad id!\r\n\r\n"
    )  # fmt: skip

    # then
    passed = stand_in.last.headers
    request_id = passed.pop("x-request-id")
    assert passed == {
        "host": "public.example", "authorization": "Bearer k", "x-api-key": "real", "prefer": "wait=1",
        "range": "bytes=0-1", "if-none-match": '"1"', "idempotency-key": "i",
    }  # fmt: skip
    assert len(request_id) == 32
    assert headers["x-request-id"] == request_id
    assert set(headers) == {
        "server", "date", "connection", "content-type", "content-length", "etag", "x-next-offset",
        "cache-control", "x-content-type-options", "x-request-id",
    }  # fmt: skip


@pytest.mark.parametrize("field", ["key", "api_key", "token", "access_token", "API_KEY", "k%65y"])
@pytest.mark.parametrize("path", ["/v1/models", "/api/tasks/", "/healthz"])
def test_a_key_in_an_address_is_refused(relay: PublicApi, stand_in: Upstream, path: str, field: str) -> None:
    # when
    status, _, body = relay.raw(get(f"{path}?{field}=s3cret"))

    # then
    assert status == 400
    assert "Authorization: Bearer" in json.loads(body)["detail"]
    assert b"s3cret" not in body
    assert stand_in.seen == []


BASIC = "Basic " + base64.b64encode(b"user:key").decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/api/models/"])
def test_basic_from_another_site_is_refused(
    relay: PublicApi, stand_in: Upstream, headers: dict[str, str], path: str
) -> None:
    # when
    response = requests.get(relay.url + path, headers={"Authorization": BASIC, **headers}, timeout=10)

    # then
    assert (response.status_code, response.json()["code"]) == (403, "cross_site_refused")
    assert stand_in.seen == []


def test_basic_from_its_own_site_and_bearer_from_anywhere_pass(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    own = {"Authorization": BASIC, "Origin": relay.url, "Sec-Fetch-Site": "same-origin"}
    elsewhere = {"Authorization": "Bearer key", "Origin": "https://tool.example"}

    # when
    statuses = [
        requests.get(f"{relay.url}/v1/models", headers=headers, timeout=10).status_code
        for headers in (own, elsewhere)
    ]

    # then
    assert statuses == [200, 200]


def judge(handler: Handler) -> None:
    handler.read_body()
    good = handler.seen.headers.get("authorization") == "Bearer good"
    if good:
        handler.answer_json(200, {"items": []})
    else:
        handler.answer_json(401, {"code": "unauthenticated"})


def test_many_wrong_keys_are_slowed_down_but_a_good_one_passes(
    start_public_api: Any, upstream: Upstream
) -> None:
    # given
    upstream.on("GET", "/v1/models", judge)
    with start_public_api(PUBLIC_API_FAILED_KEYS_PER_MINUTE="5") as api, requests.Session() as session:

        def ask(key: str | None) -> requests.Response:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return session.get(f"{api.url}/v1/models", headers=headers, timeout=10)

        assert ask("good").status_code == 200
        await_the_minutes_beginning()

        # when
        statuses = [ask(f"wrong-{number}").status_code for number in range(12)]

        # then
        assert statuses == [401] * 5 + [429] * 7
        assert len(upstream.seen) == 6
        refused = ask("wrong-again")
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert ask("good").status_code == 200
        assert ask(None).status_code == 401


@pytest.mark.parametrize(("path", "status"), [("/openapi.json", 200), ("/v1/models/x", 404)])
def test_an_answer_that_did_not_judge_a_key_makes_none_a_good_one(
    start_public_api: Any, upstream: Upstream, path: str, status: int
) -> None:
    # given a junk key that was answered without being judged
    upstream.on("GET", "/v1/models", judge)
    upstream.on_json("GET", path, status, {})
    with start_public_api(PUBLIC_API_FAILED_KEYS_PER_MINUTE="2") as api:

        def ask(path: str, key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return requests.get(api.url + path, headers=headers, timeout=10).status_code

        assert ask(path, "junk") == status
        await_the_minutes_beginning()

        # when its address has to pause
        assert [ask("/v1/models", f"wrong-{number}") for number in range(2)] == [401, 401]

        # then
        assert ask("/v1/models", "junk") == 429


def test_an_upload_over_the_limit_is_refused_with_and_without_a_length(
    start_public_api: Any, upstream: Upstream
) -> None:
    # given
    with start_public_api(MAX_UPLOAD_BYTES="1000000") as api:
        # when
        with_length = requests.put(f"{api.url}/v1/tasks", data=b"x" * 1_000_001, timeout=10)
        seen_with_length = len(upstream.seen)
        with api.connect() as sock:
            sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(12):
                sock.sendall(b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n")
            status, _, body = read_answer(sock)
        fits = requests.put(f"{api.url}/v1/tasks", data=b"x" * 1_000_000, timeout=10)

    # then
    assert (with_length.status_code, with_length.json()["code"], seen_with_length) == (413, "too_large", 0)
    assert (status, json.loads(body)["code"]) == (413, "too_large")
    assert upstream.seen[0].broken
    assert fits.status_code == 200


def test_a_hundred_slow_heads_cost_no_threads(start_public_api: Any) -> None:
    # given a server with three threads
    places = {"PUBLIC_API_BULK_TRANSFERS": "1", "PUBLIC_API_WAITING_CALLS": "1"}
    with start_public_api(**places) as api:
        slow = [api.connect() for _ in range(100)]
        for sock in slow:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost:")

        # when
        answer = requests.get(f"{api.url}/healthz", timeout=10)

        # then
        assert answer.status_code == 200
        # and the slow ones are served, once they are done
        slow[0].sendall(b" x\r\n\r\n")
        assert read_answer(slow[0])[0] == 200
        for sock in slow:
            sock.close()


def test_full_places_refuse_bulk_and_let_short_calls_pass(start_public_api: Any, upstream: Upstream) -> None:
    # given the only place for transfers taken
    with start_public_api(PUBLIC_API_BULK_TRANSFERS="1") as api, api.connect() as sock:
        sock.sendall(b"PUT /v1/tasks HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
        wait_until(lambda: upstream.seen)

        # when
        second = requests.put(f"{api.url}/v1/tasks", data=b"x" * 1000, timeout=10)
        short = requests.get(f"{api.url}/v1/models", timeout=10)
        sock.sendall(b"x" * 999_000)
        first_status = read_answer(sock)[0]
        third = requests.put(f"{api.url}/v1/tasks", data=b"x" * 1000, timeout=10)

    # then
    assert (second.status_code, second.json()["code"]) == (503, "unavailable")
    assert second.headers["Retry-After"]
    assert (short.status_code, first_status, third.status_code) == (200, 200, 200)


def test_worker_routes_pass_only_where_they_are_turned_on(start_public_api: Any, upstream: Upstream) -> None:
    # given
    upstream.on_json("POST", "/v1/leases", 204, None)

    # when
    with start_public_api(PUBLIC_API_WORKER_ROUTES="1") as api:
        claimed = requests.post(f"{api.url}/v1/leases", json={}, headers={"Lease-Token": "7"}, timeout=10)

    # then
    assert claimed.status_code == 204
    assert upstream.last.headers["lease-token"] == "7"


def test_readiness_is_the_upstreams_and_liveness_is_its_own(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    problem = {"code": "unavailable", "detail": "database: no connection", "status": 503}
    stand_in.on_json("GET", "/readyz", 503, problem, Retry_After="1")

    # when
    ready = requests.get(f"{relay.url}/readyz", timeout=10)
    alive = requests.get(f"{relay.url}/healthz", timeout=10)

    # then
    assert (ready.status_code, ready.json()) == (503, problem)
    assert alive.json() == {"status": "ok"}


def test_many_clients_at_once_get_their_own_answers(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    failures: list[str] = []

    def client(number: int) -> None:
        with requests.Session() as session:
            for turn in range(20):
                path = f"/v1/models/m{number}-{turn}"
                if session.get(relay.url + path, timeout=20).json() != {"path": path}:
                    failures.append(path)

    # when
    threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert failures == []
    assert len(stand_in.seen) == 320


def test_the_log_names_the_request_and_no_secret(relay: PublicApi, stand_in: Upstream) -> None:
    # given
    stand_in.on("GET", "/v1/models", lambda handler: handler.cut())

    # when
    requests.get(
        f"{relay.url}/v1/models", headers={"Authorization": "Bearer s3cret", "X-Request-Id": "my-request-1"},
        timeout=10,
    )  # fmt: skip

    # then
    lines = [json.loads(line) for line in Path(relay.log).read_text().splitlines()]
    line = next(line for line in lines if line.get("request_id") == "my-request-1")
    assert (line["service"], line["level"]) == ("public_api", "warning")
    assert "s3cret" not in Path(relay.log).read_text()


def test_a_client_that_sends_all_before_it_reads_still_learns_why_it_was_refused(relay: PublicApi) -> None:
    # given a body far over the limit of this route
    size = 8_000_000

    # when
    status, headers, body = relay.raw(
        f"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
    )

    # then
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body)["code"] == "too_large"
