"""The client's pure decisions: addresses, retries, exit statuses, the reading of answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import requests
from inference_server_client import (
    AnswerError,
    ApiError,
    ConfigurationError,
    KeyRefusedError,
    NotFoundError,
    RetryPolicy,
    Task,
    UnreachableError,
)
from inference_server_client.address import check_key, parse_server_address
from inference_server_client.cli.exit_codes import describe_error, exit_code_of
from inference_server_client.cli.invocation import columns
from inference_server_client.cli.reporting import describe_state
from inference_server_client.problems import read_refusal
from inference_server_client.retries import PATIENT, parse_retry_after

TASK = {
    "id": "a" * 32, "model": "echo", "model_version": 2, "state": "running", "terminal": False, "attempt": 1,
    "created_at": "2026-11-21T08:00:00Z", "started_at": "2026-11-21T08:00:00Z", "input": None, "output": None,
    "progress": {"fraction": 0.4, "message": "slice 12 of 30"}, "something_new": {"x": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "url", "key"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("https://h.example/", "https://h.example", None),
        ("https://user:k%40y@h.example:8443/a/b/", "https://h.example:8443/a/b", "k@y"),
        ("http://[::1]:8080", "http://[::1]:8080", None),
        ("https://user@h.example", "https://h.example", None),
    ],
)
def test_addresses_are_split_into_url_and_key(text: str, url: str, key: str | None):
    address = parse_server_address(text)
    assert (address.url, address.key) == (url, key)
    assert key is None or key not in repr(address)


@pytest.mark.parametrize(
    "text", ["", "localhost:8080", "ftp://x", "http://", "http://h:port", "http://h/?k=1", "http://["]
)
def test_bad_addresses_are_refused(text: str):
    with pytest.raises(ConfigurationError):
        parse_server_address(text)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [("http://127.0.0.9", True), ("http://localhost:1", True), ("http://10.0.0.1", False)],
)
def test_loopback_is_known(url: str, loopback: bool):
    assert parse_server_address(url).loopback is loopback


@pytest.mark.parametrize("text", ["", " \n", "two words", "line\nbreak", "schlüssel"])
def test_keys_that_no_header_can_carry_are_refused(text: str):
    with pytest.raises(ConfigurationError):
        check_key(text)


def delay(policy: RetryPolicy, error: Exception, attempt: int = 1, elapsed: float = 0.0, jitter: float = 0.0):
    return policy.delay_after(error, attempt=attempt, elapsed_seconds=elapsed, jitter=jitter)  # type: ignore[arg-type]


def problem(status: int, *, retryable: bool = True, after: float | None = None, code: str = "x") -> ApiError:
    return ApiError("x", code=code, status=status, retryable=retryable, retry_after_seconds=after)


def test_delays_grow_to_a_bound_and_end():
    policy = RetryPolicy(attempts=8, first_delay_seconds=1, longest_delay_seconds=5)
    delays = [delay(policy, UnreachableError("x"), attempt) for attempt in range(1, 9)]
    assert delays == [1, 2, 4, 5, 5, 5, 5, None]
    assert delay(policy, UnreachableError("x"), 2, jitter=1.0) == 1


def test_what_cannot_help_is_not_repeated():
    assert delay(RetryPolicy(), UnreachableError("certificate", retryable=False)) is None
    assert delay(RetryPolicy(), problem(422, retryable=False)) is None
    # A task that has not finished is retryable in the server's eyes; waiting for it is the caller's decision.
    assert delay(RetryPolicy(), problem(409, code="task_not_finished")) is None


def test_the_servers_wish_counts_up_to_a_bound():
    assert delay(RetryPolicy(), problem(503, after=7)) == 7
    assert delay(RetryPolicy(), problem(503, after=0)) == 0.5
    assert delay(RetryPolicy(), problem(429, after=3600)) is None


def test_patience_is_bounded_by_time_not_by_count():
    assert delay(PATIENT, UnreachableError("x"), attempt=10_000, elapsed=500) == PATIENT.longest_delay_seconds
    assert delay(PATIENT, UnreachableError("x"), attempt=2, elapsed=600) is None


def test_retry_after_is_read_as_seconds_or_date():
    now = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
    assert parse_retry_after("12") == 12
    assert parse_retry_after("Sat, 21 Nov 2026 08:00:30 GMT", now=now) == 30
    assert parse_retry_after("Sat, 21 Nov 2026 07:00:30 GMT", now=now) == 0
    assert [parse_retry_after(text) for text in (None, "", "soon", "-1", "²")] == [None] * 5


def test_a_task_is_read_with_what_is_known_and_keeps_the_rest():
    task = Task.from_json(TASK)
    assert (task.model_version, task.image_digest, task.output) == (2, None, None)
    assert task.created_at == datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert task.progress is not None
    assert task.progress.fraction == 0.4
    assert task.document["something_new"] == {"x": 1}


@pytest.mark.parametrize(
    "change", [{"id": 7}, {"state": None}, {"terminal": "no"}, {"id": "../../x"}, {"id": ""}]
)
def test_an_answer_that_is_no_task_is_refused(change: dict[str, object]):
    with pytest.raises(AnswerError):
        Task.from_json({**TASK, **change})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "running for 1m30s · 40% · slice 12 of 30"),
        ({"attempt": 2, "progress": None}, "running (attempt 2) for 1m30s"),
        ({"progress": {"fraction": True, "message": "a\x1b[2Jb"}}, "running for 1m30s · ab"),
        (
            {"state": "queued", "started_at": None, "progress": None, "queue_position": 3},
            "queued behind 3 others",
        ),
        (
            {
                "state": "failed",
                "terminal": True,
                "reason_code": "timed_out",
                "finished_at": "2026-11-21T08:00:05Z",
            },
            "failed after 5.0s · timed_out",
        ),
    ],
)
def test_a_state_is_one_line(change: dict[str, object], text: str):
    started = datetime(2026, 11, 21, 8, tzinfo=UTC)
    assert describe_state(Task.from_json({**TASK, **change}), now=started + timedelta(seconds=90)) == text


def refusal(status: int, body: bytes = b"", kind: str = "application/problem+json") -> ApiError:
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = kind
    response.raw = _Raw(body)
    return read_refusal(response)


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, size: int, *, decode_content: bool) -> bytes:
        data, self._body = self._body[:size], self._body[size:]
        return data


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (401, KeyRefusedError, 4, False),
        (403, KeyRefusedError, 4, False),
        (404, NotFoundError, 5, False),
        (410, NotFoundError, 5, False),
        (413, ApiError, 7, False),
        (429, ApiError, 7, True),
        (500, ApiError, 7, False),
        (502, ApiError, 3, True),
        (503, ApiError, 3, True),
    ],
)
def test_answers_without_a_problem_still_make_sense(status: int, kind: type, code: int, retryable: bool):
    error = refusal(status, b"<html>", "text/html")
    assert type(error) is kind
    assert exit_code_of(error) == code
    assert error.retryable is retryable
    assert error.code == f"http_{status}"
    assert str(error).endswith((".", "?"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"detail": 7, "code": null}'])
def test_damaged_problems_are_survived(body: bytes):
    assert refusal(422, body).code == "http_422"


def test_errors_are_described_for_scripts():
    error = KeyRefusedError("No.", code="unauthenticated", status=401)
    described = describe_error(error)
    assert (described["code"], described["exit_code"], described["status"]) == ("unauthenticated", 4, 401)
    assert "--key-file" in described["detail"]
    assert describe_error(FileNotFoundError(2, "No such file", "x"))["detail"] == "x: No such file."
    assert describe_error(ZeroDivisionError("y"))["exit_code"] == 70


def test_columns_align_wide_letters_and_cut_nothing():
    assert columns(["A", "B"], [["医学", "x" * 200], ["ab", "y\x1b[1m"]]) == "\n".join(
        ["A     B", "医学  " + "x" * 200, "ab    y"]
    )
