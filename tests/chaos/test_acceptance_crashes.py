"""The private API dies at each step of accepting and finishing a task: none is lost, none is doubled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.rig.api import Api, Task
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.zips import zip_of

Model = Callable[[str], str]

FILES = {"in.txt": b"in" * 1000}


@pytest.fixture
def crash(server: Server, tmp_path: Path) -> Callable[[str], Path]:
    """Starts the private API such that it dies at a point; gives the file that shows that it did."""

    def crash_at(point: str) -> Path:
        marker = tmp_path / point
        server.private_api.stop()
        server.private_api.start(CRASH_AT=point, CRASH_MARKER=str(marker))
        server.wait_until_ready()
        return marker

    return crash_at


@pytest.mark.parametrize("point", ["upload_started", "upload_finished", "blob_stored", "task_committed"])
def test_death_while_accepting(
    server: Server, admin: Api, user: Api, crash: Callable[[str], Path], point: str
) -> None:
    # Given a private API that dies at this step, once
    model = admin.register("echo")
    marker = crash(point)
    # When a client insists
    task = user.insist(model, FILES, f"crash {point} {time.time_ns()}")
    # Then it did die, and there is one task, which gives its result
    assert marker.exists()
    ended = user.ended(task)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert user.output(ended) == FILES
    listed = user.get("/v1/tasks", params={"model": model}).json()["items"]
    assert [item["id"] for item in listed] == [task["id"]]
    # And its input is the one that was sent
    assert user.get(task["urls"]["input"]).content == zip_of(FILES)


@pytest.mark.parametrize(
    ("point", "attempts"), [("claimed", {1, 2}), ("output_stored", {1}), ("completed", {1})]
)
def test_death_while_finishing(
    user: Api, model: Model, crash: Callable[[str], Path], point: str, attempts: set[int]
) -> None:
    # Given a private API that dies when a worker claims, uploads or completes
    echo = model("echo")
    marker = crash(point)
    # When
    task = user.insist(echo, FILES, f"crash {point} {time.time_ns()}")
    # Then the worker's patience, or the reaper, brings it to its end
    eventually(marker.exists, 30, "the private API died")
    ended = eventually_ended(user, task)
    assert ended["state"] == "succeeded", ended
    assert ended["attempt"] in attempts
    assert user.output(ended) == FILES


def eventually_ended(user: Api, task: Task) -> Task:
    """The task once it has ended, though the server may be away meanwhile."""

    def look() -> Task | None:
        try:
            answer = user.get(task["urls"]["self"])
        except requests.ConnectionError:
            return None
        return answer.json() if answer.status_code == 200 and answer.json()["terminal"] else None

    return eventually(look, 90, "the task has ended", every=0.2)


def test_accepted_task_outlives_a_kill_right_after_its_202(server: Server, user: Api, model: Model) -> None:
    # Given
    task = user.submit(model("slow-echo"), {"steps.txt": b"5"})
    # When
    server.private_api.kill()
    server.private_api.start()
    server.wait_until_ready()
    # Then it gives its result, at the second attempt where the kill took the answer to a claim with it
    ended = eventually_ended(user, task)
    assert ended["state"] == "succeeded", ended
    assert ended["attempt"] in {1, 2}
    assert user.output(ended) == {"steps.txt": b"5"}


def test_public_api_killed_in_the_middle_of_an_upload(server: Server, user: Api, model: Model) -> None:
    # Given an upload that is under way
    echo = model("echo")
    unfinished = server.state / "blobs" / "unfinished"
    tasks_before, files_before = kept(user), set(unfinished.iterdir())

    def pieces() -> Iterator[bytes]:
        yield bytes(2**20)
        server.public_api.kill()
        yield bytes(2**20)
        yield bytes(2**20)

    # When
    with pytest.raises(requests.ConnectionError):
        user.post("/v1/tasks", params={"model_human_readable_id": echo}, data=pieces())
    server.public_api.start()
    server.wait_until_ready()
    # Then there is no half of a task, and nothing of it in the store
    # (What a crash of an earlier test left there may have been swept meanwhile.)
    eventually(
        lambda: kept(user) == tasks_before and set(unfinished.iterdir()) <= files_before,
        10,
        "all is as it was",
    )


def kept(user: Api) -> int:
    return len(user.get("/v1/tasks", params={"limit": 1000}).json()["items"])
