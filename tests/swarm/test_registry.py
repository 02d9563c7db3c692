"""Machines fetch what they run from the registry that the stack brings along; updating and leaving drain."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.models.images import image_of
from tests.rig.api import Api
from tests.rig.nodes import Node
from tests.rig.polling import eventually
from tests.rig.swarm import Stopwatch, SwarmStack

Model = Callable[[str], str]


@pytest.fixture(scope="module")
def fresh(swarm: SwarmStack) -> Iterator[Node]:
    """A machine more, with an engine and nothing else."""
    node = swarm.add()
    node.wait_until_it_answers()
    node.load(image_of("slow-echo"))
    yield node
    swarm.machines.remove(node)
    node.close()


def test_a_machine_without_the_image_is_named(swarm: SwarmStack, fresh: Node) -> None:
    # When a machine joins that has no image of ours, and no registry to fetch it from
    swarm.join(fresh)

    # Then the status says which it is, and what to do
    def said() -> str:
        text = swarm.make("swarm-status", check=False)
        return text if "has no image on" in text else ""

    text = eventually(said, 40, "the status names the machine without an image", every=0.5)
    assert f"consumer has no image on {fresh.host_name}" in text
    assert "make bundle-load" in text
    assert "make registry-up" in text


@pytest.mark.usefixtures("registry")
def test_an_update_to_images_from_the_registry_hands_tasks_back(
    swarm: SwarmStack, user: Api, model: Model, second: Node, third: Node, fresh: Node, stopwatch: Stopwatch
) -> None:
    # Given a registry that every machine was told to trust, by a copy of one file
    assert "The engine trusts" in fresh.run("sh", str(swarm.places.registry / "join.sh"))
    # And tasks in all slots of the machines that work
    tasks = [user.submit(model("slow-echo"), {"steps.txt": b"90"}) for _ in range(4)]
    for task in tasks:
        swarm.where(task)
    before = {swarm.consumer(node).id for node in (second, third)}
    # When the stack is deployed from it
    stopwatch.begin()
    swarm.init()
    stopwatch.lap("rolling update of three consumers, until all are ready")
    # Then every consumer is a new one, of an image named by its digest
    after = [swarm.consumer(node) for node in (second, third, fresh)]
    assert not before & {container.id for container in after}
    for container in after:
        image = container.attrs["Config"]["Image"]
        assert image.startswith(f"{swarm.home.address}:5000/inferenceserver/consumer@sha256:"), image
    # And no task lost an attempt
    for task in tasks:
        ended = user.ended(task, seconds=90)
        assert (ended["state"], swarm.recorded(task, "spoiled")) == ("succeeded", "0"), ended
        assert user.output(ended) == {"steps.txt": b"90"}


@pytest.mark.usefixtures("registry")
def test_the_registry_takes_nothing_from_its_readers(swarm: SwarmStack, second: Node) -> None:
    # Given a machine that trusts the registry
    repository = f"{swarm.home.address}:5000/intruder"
    second.run("docker", "tag", swarm.consumer_image, repository)
    # When it would put an image there, then it may not
    said = second.run("docker", "push", repository, check=False)
    second.run("docker", "rmi", "--no-prune", repository)
    assert "405" in said, said


def test_leaving_drains_first_and_leaves_nothing(
    swarm: SwarmStack, user: Api, model: Model, second: Node, third: Node, fresh: Node
) -> None:
    # Given a machine with tasks
    swarm.wait_for_consumers(fresh)
    tasks = [user.submit(model("slow-echo"), {"steps.txt": b"40"}) for _ in range(6)]
    places = [swarm.where(task) for task in tasks]
    assert fresh in places
    # When it leaves
    said = swarm.make("swarm-leave", fresh, PURGE="1")
    # Then its consumer was stopped first, and all is gone from it
    assert "Stopping the consumer" in said
    assert fresh.run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}") == "inactive"
    assert fresh.client.volumes.list() == []
    assert fresh.client.containers.list(all=True) == []
    # And no task lost an attempt
    for task in tasks:
        ended = user.ended(task, seconds=60)
        assert (ended["state"], swarm.recorded(task, "spoiled")) == ("succeeded", "0"), ended
