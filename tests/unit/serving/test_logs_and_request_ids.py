"""Log lines and the ids that join them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from flask import Flask

from serving.logs import configure_logging
from serving.problems import answer_with_problems
from serving.request_ids import as_request, carry_request_ids, choose_request_id, current_request_id


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("some_service", stream=stream)
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_carries_what_is_named_and_nothing_else(log: io.StringIO) -> None:
    # when
    with as_request("request-1"):
        extra = {"task_id": "t1", "attempt": 2, "password": "s3cret"}
        logging.getLogger("here").info("said \n %s", "this", extra=extra)

    # then
    line = json.loads(log.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "service": "some_service", "logger": "here", "message": "said \n this",
        "request_id": "request-1", "task_id": "t1", "attempt": 2,
    }  # fmt: skip
    assert log.getvalue().count("\n") == 1


def test_an_exception_is_part_of_its_line(log: io.StringIO) -> None:
    # when
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger().exception("failed")

    # then
    assert "ValueError: why" in json.loads(log.getvalue())["exception"]


@pytest.mark.parametrize("offered", [None, "", "short", "a" * 65, "with space", "new\nline", "ünicode-id"])
def test_an_id_that_is_not_well_formed_is_replaced(offered: str | None) -> None:
    chosen = choose_request_id(offered)
    assert chosen != offered
    assert len(chosen) == 32


def test_an_answer_names_its_request() -> None:
    # given
    app = Flask("x")
    answer_with_problems(app)
    carry_request_ids(app)
    app.add_url_rule("/", view_func=lambda: current_request_id() or "none")

    # when
    kept = app.test_client().get("/", headers={"X-Request-Id": "from-the-edge"})
    failed = app.test_client().get("/missing")

    # then
    assert (kept.text, kept.headers["X-Request-Id"]) == ("from-the-edge", "from-the-edge")
    assert len(failed.headers["X-Request-Id"]) == 32
