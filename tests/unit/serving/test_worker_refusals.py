"""What the worker says for gunicorn's parser."""

from __future__ import annotations

import json

import pytest
from gunicorn.http import errors

from contracts.problems import ProblemCode
from serving.worker import closing_answer, refusal_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LimitRequestLine(9, 8), ProblemCode.URI_TOO_LONG),
        (errors.LimitRequestHeaders("x"), ProblemCode.HEADERS_TOO_LARGE),
        (errors.InvalidRequestLine("x"), ProblemCode.BAD_REQUEST),
        (errors.UnsupportedTransferCoding("x"), ProblemCode.BAD_REQUEST),
        (errors.InvalidChunkSize(b"x"), ProblemCode.BAD_REQUEST),
    ],
)
def test_each_refusal_has_a_code(error: Exception, code: ProblemCode) -> None:
    assert refusal_of(error)[0] is code


def test_a_refusal_is_a_whole_answer_that_ends_its_connection() -> None:
    # when
    head, _, body = closing_answer(ProblemCode.BAD_REQUEST, "It said <b>\r\nX: 1 \u2028.").partition(
        b"\r\n\r\n"
    )

    # then
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body)["detail"] == "It said <b>\r\nX: 1 \u2028."
