"""Consumers die, freeze or are told to stop in the middle of a task: it goes on, or runs elsewhere, once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rig import remains
from tests.rig.api import Api, Task
from tests.rig.polling import eventually
from tests.rig.processes import Service
from tests.rig.server import Server

Model = Callable[[str], str]

STEPS = {"steps.txt": b"30"}
LOG = b"".join(b"step %d of 30\n" % step for step in range(1, 31))


@pytest.fixture
def task(user: Api, model: Model) -> Task:
    """A task of six seconds whose container runs."""
    task = user.running(user.submit(model("slow-echo"), STEPS))
    eventually(lambda: user.get(task["urls"]["logs"]).content, 10, "it has said something")
    return task


@pytest.fixture(scope="module")
def second_node(server: Server) -> Iterator[Service]:
    """Another node, on the same engine; the test starts it."""
    service = server.add_consumer("node-2", slots=1)
    yield service
    service.stop()


def container_of(server: Server, task: Task) -> tuple[str, str]:
    """Id and slot of the one container that runs the task."""
    (container,) = remains.model_containers(server.installation, task["id"])
    return container.id, container.labels["org.inferenceserver.slot"]


def slot_process(consumer: Service, slot: str) -> int:
    """Process id of the slot's process."""
    for pid in consumer.processes():
        if f"--slot\0{slot}\0" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(f"no process of slot {slot}")


def assert_ran_once(user: Api, ended: Task) -> None:
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert user.output(ended) == STEPS
    # Not a line is missing, and none came twice.
    assert user.log(ended) == LOG


def test_killed_slot_adopts_its_container(server: Server, user: Api, task: Task) -> None:
    # Given
    container_id, slot = container_of(server, task)
    # When
    os.kill(slot_process(server.consumer, slot), signal.SIGKILL)
    # Then the same container goes on under the same attempt
    eventually(lambda: user.task(task["id"])["state"] == "running", 5, "it runs still")
    assert container_of(server, task)[0] == container_id
    assert_ran_once(user, user.ended(task))


def test_killed_consumer_adopts_its_container_when_it_is_back(server: Server, user: Api, task: Task) -> None:
    # Given
    container_id, _ = container_of(server, task)
    # When parent and slots die at once
    server.consumer.kill()
    assert container_of(server, task)[0] == container_id
    server.consumer.start()
    # Then
    assert_ran_once(user, user.ended(task))


def test_container_that_ended_meanwhile_is_not_run_again(server: Server, user: Api, model: Model) -> None:
    # Given a task that ends while nobody looks
    task = user.running(user.submit(model("slow-echo"), {"steps.txt": b"15"}))
    server.consumer.kill()
    (container,) = remains.model_containers(server.installation, task["id"])
    container.wait(timeout=30)
    # When
    server.consumer.start()
    # Then its output is delivered
    ended = user.ended(task)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert user.output(ended) == {"steps.txt": b"15"}
    assert user.log(ended).endswith(b"step 15 of 15\n")


def test_private_api_killed_while_a_model_runs(server: Server, user: Api, task: Task) -> None:
    # When
    server.private_api.kill()
    server.private_api.start()
    server.wait_until_ready()
    # Then nobody has noticed
    assert_ran_once(user, user.ended(task))


def test_task_of_a_lost_node_runs_elsewhere_within_thirty_seconds(
    server: Server, user: Api, model: Model, second_node: Service
) -> None:
    # Given a task on a node, and another node
    sleeper = user.running(user.submit(model("sleeps-for-ever")))
    lost, _ = container_of(server, sleeper)
    second_node.start()
    # When the first is lost for good
    killed_at = time.monotonic()
    server.consumer.kill()

    # Then the other one runs it
    def elsewhere() -> bool:
        found = remains.model_containers(server.installation, sleeper["id"])
        return any(c.labels["org.inferenceserver.node"] == "node-2" for c in found)

    eventually(elsewhere, 35, "the second node runs it")
    assert time.monotonic() - killed_at < 30
    assert user.task(sleeper["id"])["attempt"] == 2
    # And when the first is back it removes what it had, and leaves the other's alone
    server.consumer.start()

    def first_is_gone() -> bool:
        return lost not in {c.id for c in remains.model_containers(server.installation, sleeper["id"])}

    eventually(first_is_gone, 20, "the lost attempt's container is removed")
    assert elsewhere()
    user.post(sleeper["urls"]["cancel"])
    assert user.ended(sleeper)["state"] == "canceled"
    second_node.stop()


def test_frozen_worker_loses_its_task_and_keeps_silent_when_it_thaws(
    server: Server, user: Api, task: Task
) -> None:
    # Given a slot that stands still
    _, slot = container_of(server, task)
    frozen = slot_process(server.consumer, slot)
    os.kill(frozen, signal.SIGSTOP)
    try:
        # When its lease runs out, and the other slot takes the task and ends it
        ended = user.ended(task, seconds=60)
    finally:
        os.kill(frozen, signal.SIGCONT)
    # Then that result stands, and the first attempt's container is removed without a word
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2), ended
    assert user.output(ended) == STEPS
    eventually(lambda: not remains.model_containers(server.installation, task["id"]), 20, "nothing is left")
    assert user.task(task["id"]) == ended


def test_stopping_consumer_hands_its_task_back(server: Server, user: Api, task: Task) -> None:
    # When it is told to stop, with less time than the task needs
    server.consumer.stop()
    # Then the task waits in the queue, and nothing of it is on the node
    waiting = user.task(task["id"])
    assert (waiting["state"], waiting["reason_code"]) == ("queued", "drained")
    assert remains.model_containers(server.installation, task["id"]) == []
    # And it runs when somebody is there
    server.consumer.start()
    ended = user.ended(task)
    assert ended["state"] == "succeeded", ended
    assert user.output(ended) == STEPS


def test_cancel_while_the_consumer_is_away(server: Server, user: Api, task: Task) -> None:
    # Given
    server.consumer.kill()
    # When
    assert user.post(task["urls"]["cancel"]).status_code == 202
    server.consumer.start()
    # Then
    assert user.ended(task, seconds=40)["state"] == "canceled"
