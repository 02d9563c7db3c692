"""Parts of the running stack are killed, frozen and wiped: nothing sent is lost, and it mends by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.rig.api import Api, Task, problem
from tests.rig.polling import eventually
from tests.rig.stack import Stack
from tests.rig.zips import zip_of

Named = Callable[[int], str]
PARTS = ("rabbitmq", "postgres", "s3", "private_api", "public_api", "proxy", "consumer")
# What a part may need to start and its neighbours to find it again.
MENDED_SECONDS = 90.0


def finish(user: Api, tasks: list[Task]) -> None:
    """Every task succeeds with its own bytes, and none of them is another."""
    assert len({task["id"] for task in tasks}) == len(tasks)
    for number, task in enumerate(tasks):
        ended = user.ended(task, seconds=MENDED_SECONDS)
        assert ended["state"] == "succeeded", ended
        assert user.output(ended) == {"number": b"%d" % number}


@pytest.mark.timeout(300)
def test_every_part_is_killed_under_a_stream_of_tasks(
    stack: Stack, user: Api, echo: str, named: Named
) -> None:
    # Given somebody who kills one part after the other, and starts it again
    over = threading.Event()
    killed: list[str] = []

    def kill_in_turn() -> None:
        for name in PARTS:
            service = stack.service(name)
            service.kill()
            service.start()
            service.wait_healthy()
            killed.append(name)
        over.set()

    killer = threading.Thread(target=kill_in_turn)
    killer.start()
    # When tasks are sent all the while, each until it is accepted
    tasks: list[Task] = []
    while not over.wait(0.2) and killer.is_alive():
        tasks.append(
            user.insist(echo, {"number": b"%d" % len(tasks)}, named(len(tasks)), seconds=MENDED_SECONDS)
        )
    killer.join()
    # Then each of them arrived once, and every part was really killed
    assert killed == list(PARTS)
    assert len(tasks) >= len(PARTS)
    stack.wait_until_ready()
    finish(user, tasks)
    listed = user.get("/v1/tasks", params={"model": echo, "limit": 1000}).json()["items"]
    assert {task["id"] for task in tasks} <= {task["id"] for task in listed}
    since = tasks[0]["created_at"]
    assert sum(task["created_at"] >= since for task in listed) == len(tasks)


def test_with_a_frozen_broker_tasks_are_taken_and_run(
    stack: Stack, user: Api, echo: str, named: Named
) -> None:
    # Given a broker that holds its connections and answers nothing
    stack.service("rabbitmq").pause()
    # When tasks are sent
    tasks, took = [], []
    for number in range(10):
        began = time.monotonic()
        tasks.append(user.insist(echo, {"number": b"%d" % number}, named(number)))
        took.append(time.monotonic() - began)
    # Then none waits for it, which takes its heartbeats of ten seconds, and all run: the broker only rings
    assert max(took) < 8, took
    finish(user, tasks)


def test_a_wiped_broker_gets_its_queues_and_announcements_again(
    stack: Stack, user: Api, echo: str, named: Named
) -> None:
    # Given tasks that wait because nobody takes them
    stack.consumer.pause()
    tasks = [user.insist(echo, {"number": b"%d" % n}, named(n)) for n in range(20)]
    broker = stack.service("rabbitmq")
    # When the broker loses all that it had
    for queue in ("tasks.cpu", "tasks.gpu"):
        broker.execute(["rabbitmqctl", "-q", "delete_queue", queue])
    # Then the queues come back with their announcements
    eventually(
        lambda: b"tasks.cpu\t20" in broker.execute(["rabbitmqctl", "-q", "list_queues", "name", "messages"]),
        40,
        "the waiting tasks are announced again",
        every=0.5,
    )
    # And the tasks run
    stack.consumer.unpause()
    finish(user, tasks)


@pytest.mark.parametrize("part", ["postgres", "s3"])
def test_a_frozen_part_is_an_answer_in_good_time_and_then_mended(
    stack: Stack, user: Api, echo: str, named: Named, part: str
) -> None:
    # Given a database or a store that accepts connections and answers nothing
    service = stack.service(part)
    service.pause()
    # When a task is sent
    began = time.monotonic()
    answer = user.post("/v1/tasks", params={"model_human_readable_id": echo}, data=zip_of({"number": b"0"}))
    # Then the sender is told to come back, within what a person waits for
    document = answer.json()
    problem(answer, 503, document["code"])
    assert document["retryable"] is True
    assert time.monotonic() - began < 70
    # And once it goes on, the same task is taken and runs
    service.unpause()
    finish(user, [user.insist(echo, {"number": b"0"}, named(0))])


def test_readiness_names_the_part_that_is_missing(stack: Stack) -> None:
    # Given a store that has died
    store = stack.service("s3")
    store.kill()
    # When readiness is asked for, then it says what is missing
    eventually(
        lambda: stack.admin.get("/readyz").status_code == 503, 60, "/readyz says that something is missing"
    )
    said = stack.admin.get("/readyz").text
    assert "blob" in said.lower()
    # And is well again by itself
    store.start()
    stack.wait_until_ready()
