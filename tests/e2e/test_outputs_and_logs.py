"""Fetching what a task made: the zip in whole and in parts, the log as it grows."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from io import BytesIO

import pytest

from tests.rig.api import Api, Task, problem
from tests.rig.polling import eventually

Model = Callable[[str], str]


@pytest.fixture(scope="module")
def finished(user: Api, model: Model) -> Task:
    task = user.run(model("echo"), {"noise.bin": os.urandom(300_000)})
    assert task["state"] == "succeeded", task
    return task


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1000-1999", 1000, 1999),
        ("bytes=200000-", 200_000, None),
        ("bytes=-500", -500, None),
    ],
)
def test_part_of_the_output(user: Api, finished: Task, asked: str, first: int, last: int | None) -> None:
    # Given
    whole = user.get(finished["urls"]["output"])
    size = len(whole.content)
    # When
    part = user.get(finished["urls"]["output"], headers={"Range": asked})
    # Then
    begin = first if first >= 0 else size + first
    end = size - 1 if last is None else last
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes {begin}-{end}/{size}"
    assert part.content == whole.content[begin : end + 1]
    assert part.headers["ETag"] == whole.headers["ETag"]


def test_download_that_was_cut_off_goes_on_where_it_stopped(user: Api, finished: Task) -> None:
    # Given the first part, and its tag
    first = user.get(finished["urls"]["output"], headers={"Range": "bytes=0-99999"})
    # When the rest is asked for on condition that it is still the same
    conditions = {"Range": "bytes=100000-", "If-Range": first.headers["ETag"]}
    rest = user.get(finished["urls"]["output"], headers=conditions)
    other = user.get(finished["urls"]["output"], headers={**conditions, "If-Range": '"other"'})
    # Then
    assert rest.status_code == 206
    joined = first.content + rest.content
    assert hashlib.sha256(joined).hexdigest() == finished["output"]["sha256"]
    assert zipfile.ZipFile(BytesIO(joined)).testzip() is None
    # And where the tag is another's, all of it comes
    assert other.status_code == 200
    assert len(other.content) == finished["output"]["size_bytes"]


def test_output_that_is_known_already_is_not_sent_again(user: Api, finished: Task) -> None:
    # Given
    tag = user.get(finished["urls"]["output"]).headers["ETag"]
    # When
    answer = user.get(finished["urls"]["output"], headers={"If-None-Match": tag})
    # Then
    assert answer.status_code == 304
    assert answer.content == b""


def test_size_is_known_without_the_bytes(user: Api, finished: Task) -> None:
    # When
    answer = user.call("HEAD", finished["urls"]["output"])
    # Then
    assert answer.status_code == 200
    assert int(answer.headers["Content-Length"]) == finished["output"]["size_bytes"]


def test_range_outside_the_data_is_refused(user: Api, finished: Task) -> None:
    # When
    answer = user.get(finished["urls"]["output"], headers={"Range": "bytes=99999999-"})
    # Then
    problem(answer, 416, "range_not_satisfiable")


def test_output_of_a_task_that_has_not_ended(user: Api, model: Model) -> None:
    # Given
    task = user.submit(model("sleeps-for-ever"))
    # When
    answer = user.get(task["urls"]["output"])
    # Then
    document = problem(answer, 409, "task_not_finished")
    assert document["task_id"] == task["id"]
    assert int(answer.headers["Retry-After"]) >= 1
    user.post(task["urls"]["cancel"])


def test_progress_and_log_are_seen_while_it_runs(user: Api, model: Model) -> None:
    # Given a task of twenty steps
    task = user.submit(model("slow-echo"), {"steps.txt": b"20"})
    # When its log is followed from the beginning
    log, offset, looks, complete = b"", 0, 0, False
    while not complete:
        answer = user.get(task["urls"]["logs"], params={"offset": offset, "wait": 30})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert int(answer.headers["X-Next-Offset"]) == offset + len(answer.content)
        log, offset, looks = log + answer.content, offset + len(answer.content), looks + 1
        complete = answer.headers["X-Log-Complete"] == "true"
        if looks == 3:
            # Then progress is there before the end
            progress = eventually(lambda: user.task(task["id"])["progress"], 10, "progress is reported")
            assert 0 < progress["fraction"] <= 1
            assert progress["message"].startswith("step ")
    # Then it came in several pieces, and whole
    assert looks > 3
    assert log == b"".join(b"step %d of 20\n" % step for step in range(1, 21))
    ended = user.ended(task)
    assert ended["state"] == "succeeded"
    # And the model's last word on its progress is kept, however late it came.
    assert ended["progress"] == {"fraction": 1.0, "message": "step 20"}
    assert user.output(ended) == {"steps.txt": b"20"}


def test_log_is_read_from_any_offset(user: Api, model: Model) -> None:
    # Given
    task = user.run(model("exits-3"))
    # When
    rest = user.get(task["urls"]["logs"], params={"offset": 4})
    beyond = user.get(task["urls"]["logs"], params={"offset": 10**6})
    # Then
    assert rest.content == b"weights do not fit\n"
    assert rest.headers["X-Log-Complete"] == "true"
    assert (beyond.status_code, beyond.content) == (200, b"")


@pytest.mark.parametrize("parameters", [{"offset": -1}, {"offset": "x"}, {"wait": -1}, {"wait": "nan"}])
def test_nonsense_about_a_log_is_refused(user: Api, finished: Task, parameters: dict[str, str]) -> None:
    problem(user.get(finished["urls"]["logs"], params=parameters), 422, "invalid_field")


def test_flood_of_log_ends_at_its_limit(user: Api, admin: Api) -> None:
    # Given a model that may log 100,000 bytes and writes fifty million
    flooder = admin.register("floods-log", log_bytes=100_000)
    # When
    task = user.run(flooder)
    # Then the result is there all the same, and the log's beginning
    assert task["state"] == "succeeded", task
    log = user.log(task)
    assert 90_000 <= len(log) <= 101_000
    assert log.startswith(b"a line of log, one of very many\n")


def test_line_of_ten_megabytes_passes(user: Api, admin: Api) -> None:
    # Given
    talker = admin.register("long-log-line", log_bytes=20_000_000)
    # When
    task = user.run(talker)
    # Then
    assert task["state"] == "succeeded", task
    assert user.log(task) == b"x" * 10_000_000 + b"\nafter\n"


def test_odd_log_comes_as_it_was_written(user: Api, model: Model) -> None:
    # When
    task = user.run(model("odd-log"))
    answer = user.get(task["urls"]["logs"])
    # Then no browser takes it for a page; what is no text the engine itself has replaced
    assert answer.content == "\x1b[31mred\x1b[0m </script>\n\ufffd\ufffd bad\n".encode()
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
