"""Cancelling, running again, removing, listing; one answer for one Idempotency-Key."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.rig import remains
from tests.rig.api import Api, Task, problem
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.zips import zip_of

Model = Callable[[str], str]


def test_queued_task_is_canceled_at_once(user: Api, model: Model, busy: list[Task]) -> None:
    # Given a task that has to wait
    task = user.submit(model("echo"))
    assert user.task(task["id"])["queue_position"] is not None
    # When
    answer = user.post(task["urls"]["cancel"])
    # Then
    assert answer.status_code == 202
    ended = user.ended(task, seconds=5)
    assert (ended["state"], ended["reason_code"], ended["attempt"]) == ("canceled", "canceled_by_user", 0)


@pytest.mark.parametrize("name", ["sleeps-for-ever", "ignores-sigterm"])
def test_running_task_is_gone_within_seconds(server: Server, user: Api, model: Model, name: str) -> None:
    # Given
    task = user.running(user.submit(model(name)))
    assert remains.model_containers(server.installation, task["id"])
    # When
    assert user.post(task["urls"]["cancel"]).status_code == 202
    ended = user.ended(task, seconds=20)
    # Then
    assert (ended["state"], ended["reason_code"]) == ("canceled", "canceled_by_user")
    eventually(
        lambda: not remains.model_containers(server.installation, task["id"]), 10, "the container is removed"
    )
    problem(user.get(task["urls"]["output"]), 409, "task_failed")


def test_task_just_sent_is_canceled_wherever_it_is(server: Server, user: Api, model: Model) -> None:
    # Given tasks that are canceled at every moment of their start
    tasks = []
    for pause in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        task = user.submit(model("sleeps-for-ever"))
        time.sleep(pause)
        assert user.post(task["urls"]["cancel"]).status_code == 202
        tasks.append(task)
    # Then all are
    assert {user.ended(task, 30)["state"] for task in tasks} == {"canceled"}
    ids = [task["id"] for task in tasks]
    eventually(
        lambda: not any(remains.model_containers(server.installation, task_id) for task_id in ids),
        10,
        "no container is left",
    )


def test_task_that_has_ended_cannot_be_canceled(user: Api, model: Model) -> None:
    # Given
    task = user.run(model("echo"))
    # When / Then
    document = problem(user.post(task["urls"]["cancel"]), 409, "task_finished")
    assert document["task_id"] == task["id"]
    assert user.task(task["id"])["state"] == "succeeded"


def test_canceling_twice_is_the_same_as_once(user: Api, model: Model) -> None:
    # Given
    task = user.submit(model("sleeps-for-ever"))
    # When
    statuses = [user.post(task["urls"]["cancel"]).status_code for _ in range(3)]
    user.ended(task)
    statuses.append(user.post(task["urls"]["cancel"]).status_code)
    # Then
    assert set(statuses) == {202}


@pytest.mark.parametrize("name", ["echo", "exits-3"])
def test_ended_task_runs_again_under_a_new_id(user: Api, model: Model, name: str) -> None:
    # Given
    first = user.run(model(name), {"a": b"b"})
    # When
    answer = user.post(first["urls"]["retry"])
    # Then
    assert answer.status_code == 202
    second = user.ended(answer.json())
    assert second["id"] != first["id"]
    assert second["state"] == first["state"]
    assert second["input"]["sha256"] == first["input"]["sha256"]
    # And the first is as it was
    assert user.task(first["id"]) == first


def test_task_that_has_not_ended_does_not_run_again(user: Api, model: Model) -> None:
    # Given
    task = user.submit(model("sleeps-for-ever"))
    # When / Then
    problem(user.post(task["urls"]["retry"]), 409, "task_not_finished")
    user.post(task["urls"]["cancel"])


def test_input_outlives_the_removal_of_the_first_of_two_runs(user: Api, model: Model) -> None:
    # Given a task and its repetition, which share an input
    first = user.run(model("echo"), {"a": b"b"})
    second = user.ended(user.post(first["urls"]["retry"]).json())
    # When
    assert user.call("DELETE", first["urls"]["self"]).status_code == 204
    # Then
    assert user.get(second["urls"]["input"]).status_code == 200
    third = user.ended(user.post(second["urls"]["retry"]).json())
    assert user.output(third) == {"a": b"b"}


def test_removed_task_is_gone_with_its_data(server: Server, user: Api, model: Model) -> None:
    # Given
    before = blobs(server)
    task = user.run(model("echo"))
    assert len(blobs(server) - before) == 2
    # When
    assert user.call("DELETE", task["urls"]["self"]).status_code == 204
    # Then
    for route in ("self", "input", "output", "logs"):
        problem(user.get(task["urls"][route]), 404, "task_not_found")
    problem(user.call("DELETE", task["urls"]["self"]), 404, "task_not_found")
    eventually(lambda: blobs(server) == before, 10, "its blobs are removed")


def test_running_task_is_stopped_by_its_removal(server: Server, user: Api, model: Model) -> None:
    # Given
    task = user.running(user.submit(model("sleeps-for-ever")))
    # When
    assert user.call("DELETE", task["urls"]["self"]).status_code == 204
    # Then
    problem(user.get(task["urls"]["self"]), 404, "task_not_found")
    eventually(lambda: not remains.model_containers(server.installation, task["id"]), 30, "container removed")


def blobs(server: Server) -> set[str]:
    return server.blobs()


def test_list_is_paged_and_filtered(server: Server, model: Model) -> None:
    # Given somebody with five tasks of two models
    somebody = server.caller("user")
    sent = [somebody.run(model("echo"))["id"] for _ in range(3)]
    sent += [somebody.run(model("exits-3"))["id"] for _ in range(2)]
    # When
    pages: list[list[str]] = []
    cursor = None
    while cursor is not None or not pages:
        answer = somebody.get("/v1/tasks", params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200
        pages.append([task["id"] for task in answer.json()["items"]])
        cursor = answer.json()["next_cursor"]
    # Then the newest come first, each once
    assert [task for page in pages for task in page] == sent[::-1]
    assert [len(page) for page in pages] == [2, 2, 1]

    def listed(**query: str) -> list[str]:
        items: list[Task] = somebody.get("/v1/tasks", params=query).json()["items"]
        return sorted(task["id"] for task in items)

    moment = somebody.task(sent[2])["created_at"]
    assert listed(state="failed") == sorted(sent[3:])
    assert listed(model=model("echo")) == sorted(sent[:3])
    assert listed(created_after=moment, state="failed") == sorted(sent[3:])
    assert listed(created_before=moment) == sorted(sent[:2])
    assert listed(state="canceled") == []


def test_same_key_makes_one_task(user: Api, model: Model) -> None:
    # Given
    body, key = zip_of({"a": b"1"}), {"Idempotency-Key": f"once-{time.time_ns()}"}
    # When the same is sent three times
    tasks = [user.submit(model("echo"), body, **key) for _ in range(3)]
    # Then it is one task
    assert len({task["id"] for task in tasks}) == 1
    # And another body under the key is refused
    other = user.post(
        "/v1/tasks", params={"model_human_readable_id": model("echo")}, data=zip_of({"a": b"2"}), headers=key
    )
    problem(other, 409, "idempotency_conflict")


def test_same_key_of_somebody_else_is_another_key(user: Api, stranger: Api, model: Model) -> None:
    # Given
    body, key = zip_of({"a": b"1"}), {"Idempotency-Key": f"shared-{time.time_ns()}"}
    # When
    tasks: list[dict[str, Any]] = [caller.submit(model("echo"), body, **key) for caller in (user, stranger)]
    # Then
    assert tasks[0]["id"] != tasks[1]["id"]
