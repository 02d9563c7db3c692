"""A broker of three nodes, each on a machine of its own: one machine is lost, and slots go on hearing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.api import Api
from tests.rig.containers import run_inside
from tests.rig.nodes import Node
from tests.rig.polling import eventually
from tests.rig.swarm import Stopwatch, SwarmStack

Model = Callable[[str], str]


@pytest.fixture
def three_brokers(swarm: SwarmStack, second: Node, third: Node) -> Iterator[None]:
    """The stack with three of them; with one again afterwards."""
    for number, node in enumerate((swarm.home, second, third), start=1):
        label = f"inferenceserver.broker={number}"
        swarm.home.run("docker", "node", "update", "--label-add", label, swarm.id_of(node))
    swarm.init(BROKER_NODES="3")
    yield
    swarm.init(BROKER_NODES="1")


def ask_broker(swarm: SwarmStack, *words: str) -> Any:
    """What the node at home says to `rabbitmqctl`, None while it cannot."""
    label = f"com.docker.swarm.service.name={swarm.stack}_rabbitmq-1"
    (container,) = swarm.home.client.containers.list(filters={"label": label})
    done = run_inside(container, ["rabbitmqctl", "--quiet", "--formatter", "json", *words])
    try:
        return json.loads(done.output) if done.exit_code == 0 else None
    except ValueError:
        # It began a list, and then had no words for what has only just begun.
        return None


def nodes_that_run(swarm: SwarmStack) -> int:
    """How many nodes the broker at home sees, itself too."""
    status = ask_broker(swarm, "cluster_status")
    return len(status["running_nodes"]) if status else 0


def slots_that_hear(swarm: SwarmStack) -> int:
    """How many are subscribed to announcements, as the broker counts them."""
    queues = ask_broker(swarm, "list_queues", "name", "consumers")
    # Of one whose leader is only being chosen it says nothing.
    return max((int(queue["consumers"] or 0) for queue in queues or []), default=0)


def seconds_of_a_task(user: Api, model: str) -> float:
    """How long a small task takes: a slot that does not hear of it looks for one every 25 s only."""
    began = time.monotonic()
    ended = user.run(model)
    assert ended["state"] == "succeeded", ended
    return time.monotonic() - began


def test_without_labelled_machines_three_brokers_are_refused(swarm: SwarmStack) -> None:
    said = swarm.make("swarm-init", BROKER_NODES="3", ADVERTISE=swarm.home.address, check=False)
    assert "inferenceserver.broker=1, 2 and 3" in said
    assert "Deploying" not in said


@pytest.mark.usefixtures("registry", "three_brokers")
def test_a_machine_with_a_node_of_the_broker_is_lost(
    swarm: SwarmStack, user: Api, model: Model, third: Node, stopwatch: Stopwatch
) -> None:
    # Given three nodes that know each other, and all slots subscribed
    eventually(lambda: nodes_that_run(swarm) == 3, 90, "three nodes hold together", every=2)
    eventually(lambda: slots_that_hear(swarm) == 4, 60, "all slots hear", every=2)
    # When the machine of one of them is gone
    stopwatch.begin()
    third.kill()
    # Then tasks run on, and the slots that are left are subscribed at the nodes that are left
    for number in range(4):
        ended = user.ended(user.submit(model("echo"), {"n": b"%d" % number}), seconds=60)
        assert ended["state"] == "succeeded", ended
    eventually(lambda: nodes_that_run(swarm) == 2, 60, "the broker has noticed", every=2)
    # (The broker itself counts the lost machine's slots for a while: nobody has hung up.)
    eventually(lambda: seconds_of_a_task(user, model("echo")) < 5, 90, "the slots left hear")
    stopwatch.lap("one machine of three brokers killed: the slots left hear")
    # And when it is back, it is one of them again
    third.start()
    eventually(lambda: nodes_that_run(swarm) == 3, 90, "three nodes again", every=2)
    stopwatch.lap("the same, and switched on again: three nodes")
