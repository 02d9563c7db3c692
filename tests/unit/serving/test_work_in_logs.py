"""What a thread works on stands in each of its lines, and in those of the threads that it starts."""

from __future__ import annotations

import io
import json
import logging
import threading
from typing import Any

from serving.logs import JsonFormatter, same_work, working_on
from serving.request_ids import as_request


class Lines:
    """A logger of its own, and what it wrote."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(JsonFormatter("consumer", node="node-1", slot="cpu-0"))
        self.log = logging.Logger("test")
        self.log.addHandler(handler)

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def test_lines_of_a_task_carry_it_and_later_lines_do_not() -> None:
    lines = Lines()

    # Whatever this thread has served before.
    with as_request(None):
        with working_on(request_id="request-1", task_id="t1", attempt=2):
            lines.log.warning("during")
        lines.log.warning("after")

    during, after = lines.all()
    assert (during["request_id"], during["task_id"], during["attempt"]) == ("request-1", "t1", 2)
    assert not {"request_id", "task_id", "attempt"} & after.keys()
    assert (after["node"], after["slot"]) == ("node-1", "cpu-0")


def test_a_thread_goes_on_with_the_work_of_whoever_started_it() -> None:
    lines = Lines()

    def work() -> None:
        lines.log.warning("from a thread")

    with working_on(task_id="t1"):
        threads = [threading.Thread(target=same_work(work)), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
        thread.join()

    knowing, ignorant = lines.all()
    assert knowing["task_id"] == "t1"
    assert "task_id" not in ignorant


def test_what_a_line_says_itself_wins_and_the_request_stays_where_none_is_given() -> None:
    lines = Lines()

    with as_request("request-1"), working_on(task_id="t1"):
        lines.log.warning("said", extra={"task_id": "t2"})

    assert (lines.all()[0]["task_id"], lines.all()[0]["request_id"]) == ("t2", "request-1")


def test_a_name_that_is_not_listed_never_reaches_the_log() -> None:
    lines = Lines()

    with working_on(authorization="Bearer s3cret"):
        lines.log.warning("said")

    assert "s3cret" not in json.dumps(lines.all())
