"""Machines join and leave a Swarm, and what runs on them is drained first."""

from __future__ import annotations

from collections.abc import Callable

from tests.rig.api import Api, Task
from tests.rig.nodes import Node
from tests.rig.polling import eventually
from tests.rig.swarm import SwarmStack

Model = Callable[[str], str]
# About six seconds: longer than a drain lets a task go on.
LONG, LONG_STEPS = {"steps.txt": b"40"}, b"40"


def assert_ran_elsewhere_unspent(swarm: SwarmStack, user: Api, task: Task, first: Node) -> None:
    """The task was handed back by ``first`` and succeeded on another machine, no attempt spent."""
    eventually(lambda: not swarm.models_of(first, task), 30, f"it left {first.host_name}", every=0.1)
    assert swarm.where(task, seconds=40) is not first
    ended = user.ended(task, seconds=60)
    assert (ended["state"], swarm.recorded(task, "spoiled")) == ("succeeded", "0"), ended
    assert user.output(ended) == LONG


def test_tasks_run_on_machines_that_joined_by_one_line(
    swarm: SwarmStack, user: Api, model: Model, second: Node, third: Node
) -> None:
    # Given machines of which nothing was asked but the line that swarm-init printed
    assert swarm.join_line[:3] == ["docker", "swarm", "join"]
    # When as many tasks are sent as they have slots
    tasks = [user.submit(model("slow-echo"), LONG) for _ in range(4)]
    # Then each gives its own result, and both ran some
    for task in tasks:
        ended = user.ended(task)
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert {swarm.recorded(task, "node") for task in tasks} == {second.host_name, third.host_name}


def test_a_model_that_asks_for_a_label_runs_on_the_machine_whose_engine_has_it(
    swarm: SwarmStack, admin: Api, user: Api, third: Node
) -> None:
    northern = admin.register("echo", node_labels={"site": "north"})
    for _ in range(3):
        task = user.submit(northern)
        assert user.ended(task)["state"] == "succeeded"
        assert swarm.recorded(task, "node") == third.host_name
    # And one for which there is none is told so, once a consumer that left before its report is forgotten
    # (the home's may have): nobody knew what that had
    southern = user.submit(admin.register("echo", node_labels={"site": "south"}))
    waiting_for = eventually(
        lambda: user.task(southern["id"])["waiting_for"], 120, "it says what it waits for"
    )
    assert "site=south" in waiting_for


def test_without_encryption_in_the_kernel_nothing_is_deployed_unasked(swarm: SwarmStack) -> None:
    # Given a kernel without ESP, which makes an encrypted network that carries nothing
    # When nobody says that it shall do without
    said = swarm.make("swarm-init", SWARM_ENCRYPTION="on", check=False)
    # Then
    assert "kernel cannot encrypt" in said
    assert "SWARM_ENCRYPTION=off" in said
    assert "Deploying" not in said


def test_status_names_machines_and_services(swarm: SwarmStack, second: Node) -> None:
    # When
    said = swarm.make("swarm-status")
    # Then
    assert "private_api  running" in said
    assert f"{second.host_name} " in said
    assert "consumer runs, ready" in said
    assert "no consumer (inferenceserver=off)" in said
    assert "NOT encrypted" in said


def test_a_label_keeps_the_consumer_away_and_its_task_moves_on(
    swarm: SwarmStack, user: Api, model: Model
) -> None:
    # Given a running task
    task = user.submit(model("slow-echo"), LONG)
    first = swarm.where(task)
    # When its machine is labelled
    swarm.label(first, "off")
    # Then the consumer hands the task back and goes
    assert_ran_elsewhere_unspent(swarm, user, task, first)
    eventually(lambda: swarm.consumer(first) is None, 30, "the consumer is gone")
    # And comes back with the label's end
    swarm.label(first, "")
    swarm.wait_for_consumers(first)


def test_draining_a_machine_hands_its_task_back(swarm: SwarmStack, user: Api, model: Model) -> None:
    # Given
    task = user.submit(model("slow-echo"), LONG)
    first = swarm.where(task)
    # When Docker is told to drain the machine
    swarm.home.run("docker", "node", "update", "--availability", "drain", swarm.id_of(first))
    # Then
    assert_ran_elsewhere_unspent(swarm, user, task, first)
    swarm.home.run("docker", "node", "update", "--availability", "active", swarm.id_of(first))


def test_a_wrong_token_joins_nothing(swarm: SwarmStack, second: Node) -> None:
    # Given a machine that is in no Swarm
    stranger = swarm.add()
    try:
        stranger.wait_until_it_answers()
        # When it tries to join with a token that is not this Swarm's
        token = swarm.join_line[4]
        wrong = token[:-8] + ("aaaaaaaa" if not token.endswith("aaaaaaaa") else "bbbbbbbb")
        said = stranger.run(
            *("docker", "swarm", "join", "--token", wrong, swarm.join_line[5]), check=False, seconds=60
        )
        # Then it is refused, and the manager knows of nobody
        assert "token" in said.lower(), said
        assert stranger.run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
        known = swarm.home.run("docker", "node", "ls", "--format", "{{.Hostname}}").split()
        assert stranger.host_name not in known
        assert second.host_name in known
    finally:
        swarm.machines.remove(stranger)
        stranger.close()
