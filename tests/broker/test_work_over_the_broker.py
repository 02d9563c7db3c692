"""Tasks reach slots over RabbitMQ: promptly, once, by their kind, and around everything that is no task."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.announcements import Announcement, encode
from tests.broker.conftest import SLOTS
from tests.rig import remains
from tests.rig.api import Api, Task
from tests.rig.brokers import TestBroker
from tests.rig.polling import eventually
from tests.rig.server import Server

Model = Callable[[str], str]


@pytest.fixture(autouse=True)
def waiting_slots(server: Server, broker: TestBroker) -> None:
    """Every slot waits for an announcement."""
    if not server.consumer.running:
        server.consumer.start()
    broker.wait_consumers("tasks.cpu", SLOTS, 30)


def test_a_task_is_heard_of_and_runs(user: Api, model: Model, broker: TestBroker) -> None:
    began = time.monotonic()
    ended = user.run(model("echo"), {"in.txt": b"in"})
    assert ended["state"] == "succeeded", ended
    assert user.output(ended) == {"in.txt": b"in"}
    # A slot that had not been told would have looked after a minute.
    assert time.monotonic() - began < 20
    broker.wait_ready("tasks.cpu", 0)


def test_many_tasks_leave_no_announcement_behind(user: Api, model: Model, broker: TestBroker) -> None:
    tasks = [user.submit(model("echo")) for _ in range(12)]
    ended = [user.ended(task) for task in tasks]
    assert {(task["state"], task["attempt"]) for task in ended} == {("succeeded", 1)}
    broker.wait_ready("tasks.cpu", 0)


def test_the_same_message_a_hundred_times_runs_once(
    server: Server, user: Api, model: Model, broker: TestBroker
) -> None:
    # Given a task, announced a hundred and one times before any slot hears of it
    echo = model("echo")
    server.consumer.stop()
    task = user.submit(echo)
    # (What the slots had not yet confirmed when they were stopped is there too.)
    eventually(lambda: broker.ready("tasks.cpu") > 0, 20, "the task is announced")
    broker.publish("tasks.cpu", *[encode(Announcement(task_id=task["id"]))] * 100)
    # When slots listen
    server.consumer.start()
    ended = user.ended(task)
    # Then it ran once, and every message is gone
    broker.wait_ready("tasks.cpu", 0)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    seen = user.task(task["id"])
    assert (seen["attempt"], seen["output"]["sha256"]) == (1, ended["output"]["sha256"])
    # And another task is heard of as before
    assert user.run(echo)["state"] == "succeeded"


def test_a_task_for_a_gpu_never_stands_before_a_cpu_slot(
    admin: Api, user: Api, model: Model, broker: TestBroker
) -> None:
    # Given a task that no slot of this server can run
    big = admin.register("echo", use_gpu=True)
    waiting = user.submit(big)
    # When one comes after it that every slot can
    assert user.run(model("echo"))["state"] == "succeeded"
    # Then the first waits, announced to those whom it concerns
    assert user.task(waiting["id"])["state"] == "queued"
    broker.wait_ready("tasks.gpu", 1)
    broker.take("tasks.gpu")
    admin.post(f"/v1/tasks/{waiting['id']}/cancel")


def test_slots_that_wait_leave_at_once_and_take_nothing_along(
    server: Server, user: Api, model: Model, broker: TestBroker
) -> None:
    # Given slots that wait for a minute
    began = time.monotonic()
    # When they are told to stop
    server.consumer.stop()
    # Then they do, and say farewell to the broker
    assert time.monotonic() - began < 20
    broker.wait_consumers("tasks.cpu", 0, 5)
    # And what comes now waits for the next
    task = user.submit(model("echo"))
    broker.wait_ready("tasks.cpu", 1)
    server.consumer.start()
    assert user.ended(task)["state"] == "succeeded"


def test_garbage_is_out_of_the_way_and_before_the_operators_eyes(
    admin: Api, user: Api, model: Model, broker: TestBroker
) -> None:
    # Given
    assert admin.call("DELETE", "/v1/dead-letters").status_code == 200
    broker.publish("tasks.cpu", b"\xff garbage", b"{}", b'{"version": 9, "task_id": "x"}')
    # When a task comes after it
    assert user.run(model("echo"))["state"] == "succeeded"
    # Then the garbage is shown, and goes when it is told to
    answer = eventually(
        lambda: (seen := admin.get("/v1/dead-letters").json())["count"] == 3 and seen,
        10,
        "three dead letters",
    )
    assert {(letter["queue"], letter["reason"]) for letter in answer["dead_letters"]} == {
        ("tasks.cpu", "rejected")
    }
    assert user.get("/v1/dead-letters").status_code == 403
    assert admin.call("DELETE", "/v1/dead-letters").json() == {"removed": 3}
    assert admin.get("/v1/dead-letters").json() == {"dead_letters": [], "count": 0}


def test_a_connection_closed_while_slots_wait_costs_nothing(
    user: Api, model: Model, broker: TestBroker
) -> None:
    broker.close_connections("worker")
    broker.close_connections("server")
    ended = user.run(model("echo"))
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)


def test_a_busy_slot_leaves_announcements_to_others(
    server: Server, user: Api, model: Model, broker: TestBroker
) -> None:
    # Given both slots at work, and more tasks than slots
    busy = [user.submit(model("sleeps-for-ever")) for _ in range(SLOTS)]
    for task in busy:
        user.running(task)
    waiting = user.submit(model("echo"))
    # Then the announcement is in nobody's hands
    broker.wait_ready("tasks.cpu", 1)
    assert user.task(waiting["id"])["state"] == "queued"
    # And whoever is free first has it
    user.post(f"/v1/tasks/{busy[0]['id']}/cancel")
    assert user.ended(waiting)["state"] == "succeeded"
    user.post(f"/v1/tasks/{busy[1]['id']}/cancel")
    user.ended(busy[1])
    eventually(lambda: not remains.containers(server.installation, role="model"), 30, "nothing is left")


@pytest.mark.parametrize("point", ["announcing", "announced"])
def test_death_of_the_private_api_while_announcing(
    server: Server, user: Api, model: Model, broker: TestBroker, tmp_path: Path, point: str
) -> None:
    # Given a private API that dies before or after it announces, once
    echo = model("echo")
    marker = tmp_path / point
    server.private_api.stop()
    server.private_api.start(CRASH_AT=point, CRASH_MARKER=str(marker))
    server.wait_until_ready()
    # When a client insists on a task
    task = user.insist(echo, {"in.txt": b"in"}, f"crash {point} {time.time_ns()}")
    eventually(marker.exists, 20, "the private API died")

    # Then a new process announces what the old one did not, and the task ends once: at the second attempt
    # where a slot heard of it so soon that the answer to its claim died with the process
    def look() -> Task | None:
        answer = user.get(f"/v1/tasks/{task['id']}")
        return answer.json() if answer.status_code == 200 and answer.json()["terminal"] else None

    ended = eventually(look, 60, "the task has ended")
    assert ended["state"] == "succeeded", ended
    assert ended["attempt"] in ({1, 2} if point == "announced" else {1}), ended
    broker.wait_ready("tasks.cpu", 0)
