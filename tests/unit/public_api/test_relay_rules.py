"""Routes, headers and credentials: the relay's decisions, without a network."""

from __future__ import annotations

import pytest

from contracts.problems import ProblemCode
from public_api.credentials import presented_credential, refuse_cross_site
from public_api.headers import request_headers, response_headers
from public_api.routes import Kind, asked_wait_seconds, find_kind, parse_target, query_fields
from serving.problems import ProblemError

TASK = "/v1/tasks/" + "0" * 32


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v1/models", Kind.CONTROL), ("HEAD", "/v1/models", Kind.CONTROL),
        ("POST", "/v1/models", Kind.BULK), ("PATCH", "/v1/models/a%20b", Kind.BULK),
        ("PUT", "/v1/tasks", Kind.BULK), ("GET", f"{TASK}/output", Kind.BULK),
        ("POST", f"{TASK}/retry", Kind.CONTROL), ("DELETE", "/v1/keys/7", Kind.CONTROL),
        ("GET", "/v1/dead-letters", Kind.CONTROL), ("DELETE", "/v1/dead-letters", Kind.CONTROL),
        ("GET", "/v1/nodes", Kind.CONTROL), ("DELETE", "/v1/nodes/gpu1", Kind.CONTROL),
        ("POST", "/v1/nodes/gpu1/drain", Kind.CONTROL), ("POST", "/v1/nodes/gpu1/resume", Kind.CONTROL),
    ],
)  # fmt: skip
def test_a_listed_request_has_a_kind(method: str, path: str, kind: Kind) -> None:
    assert find_kind(method, path, worker_routes=False) is kind


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/leases", Kind.WAIT),
        ("POST", "/v1/nodes/gpu1/report", Kind.CONTROL),
        ("GET", f"/v1/nodes/gpu1/content/{'0' * 64}", Kind.BULK),
    ],
)
def test_worker_routes_exist_only_where_they_are_turned_on(method: str, path: str, kind: Kind) -> None:
    assert find_kind(method, path, worker_routes=True) is kind
    with pytest.raises(ProblemError) as caught:
        find_kind(method, path, worker_routes=False)
    assert caught.value.code is ProblemCode.NOT_FOUND


@pytest.mark.parametrize(
    "raw",
    ["*", "v1/models", "/a#b", "", "ftp:/x", "http://h#/v1/models", "http:///v1/models", "ftp://h/v1/models"],
)  # fmt: skip
def test_an_address_that_could_be_misread_is_refused(raw: str) -> None:
    with pytest.raises(ProblemError):
        parse_target(raw)


def test_an_address_is_sent_as_it_came() -> None:
    assert parse_target("/v1/models/%41?x=%2f&&y").sent == "/v1/models/%41?x=%2f&&y"
    assert parse_target("http://h:1/v1/models?x=http://y").sent == "/v1/models?x=http://y"
    assert parse_target("/v1/models?").sent == "/v1/models"


@pytest.mark.parametrize("raw", ["http://h?a=/v1/models", "HTTPS://h?a=/v1/models"])
def test_a_host_ends_where_its_query_begins(raw: str) -> None:
    target = parse_target(raw)
    assert (target.path, target.query) == ("/", "a=/v1/models")


def test_a_query_has_a_bounded_number_of_fields() -> None:
    with pytest.raises(ProblemError):
        query_fields("&".join(f"f{number}=1" for number in range(51)))


@pytest.mark.parametrize(
    ("prefer", "query", "seconds"),
    [
        (None, "", 0), ("wait=5", "", 5), ("respond-async, wait=7", "", 7), ("WAIT=600", "", 60),
        ("waiter=5", "", 0), (None, "wait=30", 30), ("wait=2", "wait=9", 9), (None, "wait=-3", 0),
        (None, "wait=" + "9" * 400, 60), (None, "wait=x", 0),
    ],
)  # fmt: skip
def test_a_wait_is_read_and_bounded(prefer: str | None, query: str, seconds: float) -> None:
    assert asked_wait_seconds(Kind.CONTROL, prefer, query_fields(query)) == seconds


def test_a_workers_call_may_always_be_held() -> None:
    assert asked_wait_seconds(Kind.WAIT, None, []) == 60


def test_request_headers_are_those_of_the_list() -> None:
    # given
    environ = {
        "HTTP_HOST": "h", "HTTP_COOKIE": "c", "HTTP_AUTHORIZATION": "a", "HTTP_LEASE_TOKEN": "7",
        "HTTP_X_REQUEST_ID": "theirs", "HTTP_CONNECTION": "keep-alive", "CONTENT_TYPE": "t/t",
    }  # fmt: skip

    # when / then
    assert request_headers(environ, request_id="ours") == [
        ("Host", "h"), ("Authorization", "a"), ("Content-Type", "t/t"), ("X-Request-Id", "ours"),
    ]  # fmt: skip
    assert ("Lease-Token", "7") in request_headers(environ, request_id=None, from_worker=True)


def test_answers_are_not_kept_on_the_way_unless_the_upstream_says_so() -> None:
    assert response_headers([("X-Secret", "1")]) == [("Cache-Control", "no-store")]
    assert response_headers([("cache-control", "max-age=5")]) == [("cache-control", "max-age=5")]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://a.example", "a.example"), ("http://a.example:80", "a.example"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"), ("http://[::1]:8080", "[::1]:8080"),
    ],
)  # fmt: skip
def test_an_origin_of_our_own_passes(origin: str, host: str) -> None:
    refuse_cross_site({"HTTP_AUTHORIZATION": "Basic x", "HTTP_ORIGIN": origin, "HTTP_HOST": host})


@pytest.mark.parametrize(
    "origin", ["https://b.example", "null", "", "http://a.example:99999", "file://a.example"]
)
def test_a_foreign_origin_is_refused_for_basic_and_for_ambient_keys(origin: str) -> None:
    environ = {"HTTP_ORIGIN": origin, "HTTP_HOST": "a.example"}
    refuse_cross_site(environ)
    with pytest.raises(ProblemError):
        refuse_cross_site(environ, ambient=True)
    with pytest.raises(ProblemError):
        refuse_cross_site({**environ, "HTTP_AUTHORIZATION": "bAsIc x"})


def test_a_credential_is_whatever_is_offered() -> None:
    assert presented_credential({}) is None
    assert presented_credential({"HTTP_X_API_KEY": "k"}) != presented_credential({"HTTP_AUTHORIZATION": "k"})
