"""Images on a node are a cache: those that were pulled for tasks go, and no others.

They are on the engine's own disk, which tests do not fill: its watermarks are put below what it has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from consumer.bootstrap import build_room
from consumer.node.room import Room
from consumer.node.settings import Settings
from consumer.outside.docker_engine import DockerEngine
from consumer.slot.worker import SlotWorker
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import WorkerProtocol, wait_until
from tests.rig.stocked_registry import StockedRegistry

HOUR = 3600.0


@pytest.fixture
def registry(engine: DockerEngine) -> Iterator[StockedRegistry]:
    registry = StockedRegistry()
    yield registry
    registry.close()
    found = engine._api.images(quiet=False)
    for tag in [tag for image in found for tag in image["RepoTags"] or ()]:
        if tag.startswith(f"{registry.address}/"):
            engine._api.remove_image(tag, force=True)


@pytest.fixture
def full(settings: Settings, engine: DockerEngine) -> Room:
    """A room whose every disk is above its high watermark."""
    return build_room(replace(settings, disk_high_percent=0.0, disk_low_percent=0.0), engine)


def age(settings: Settings) -> None:
    moment = time.time() - HOUR
    for record in (settings.directory / "images").iterdir():
        os.utime(record, (moment, moment))


def leaves(image: str, full: Room, engine: DockerEngine) -> None:
    """Have it go, as soon as the container of the last task has gone."""
    wait_until(lambda: full.tidy() is None and engine.find_image(image) is None)


def run(protocol: WorkerProtocol, image: str) -> None:
    task = protocol.submit(image)
    assert task.ended.wait(90)
    assert task.failure is None, task.failure


def test_an_image_that_was_pulled_for_a_task_goes_and_is_pulled_again(
    registry: StockedRegistry,
    protocol: WorkerProtocol,
    engine: DockerEngine,
    settings: Settings,
    full: Room,
    worker: SlotWorker,
) -> None:
    # Given an image that a task had pulled, a while ago
    image = registry.add("ours", "1", "echo ours > /output/x")
    run(protocol, image)
    full.tidy()
    assert engine.find_image(image) is not None, "it was used a moment ago"
    age(settings)
    # When the engine's disk is too full, it goes
    leaves(image, full, engine)
    # And comes again when it is wanted again
    run(protocol, image)
    assert engine.find_image(image) is not None


def test_an_image_stays_while_any_container_has_it(
    registry: StockedRegistry,
    protocol: WorkerProtocol,
    engine: DockerEngine,
    settings: Settings,
    full: Room,
    worker: SlotWorker,
) -> None:
    # Given a pulled image that runs
    image = registry.add("runs", "1", "echo up; sleep 600")
    task = protocol.submit(image)
    wait_until(lambda: b"up" in task.log)
    age(settings)
    # Then it stays
    full.tidy()
    assert engine.find_image(image) is not None
    # When it has ended, but somebody has made another container of it
    protocol.cancel(task)
    assert task.ended.wait(90)
    stranger = engine.create_container({"Image": image, "HostConfig": {"NetworkMode": "none"}})
    try:
        full.tidy()
        assert engine.find_image(image) is not None
    finally:
        engine.remove_container(stranger)
    # And when nobody has it any more, it goes
    age(settings)
    leaves(image, full, engine)


def test_what_others_put_there_stays(
    registry: StockedRegistry,
    protocol: WorkerProtocol,
    engine: DockerEngine,
    images: Images,
    settings: Settings,
    full: Room,
    worker: SlotWorker,
) -> None:
    # Given a local build, an image pulled by hand, and one that we pulled and somebody then named
    build = images.script("touch /output/x")
    by_hand = registry.add("by-hand", "1", "echo 1 > /output/x")
    engine._api.pull(by_hand)
    named = registry.add("named", "1", "echo 2 > /output/x")
    for image in (build, by_hand, named):
        run(protocol, image)
    engine._api.tag(named, f"{registry.address}/kept", "mine")
    age(settings)
    # When the engine's disk is too full, the last loses the name that we pulled it by
    leaves(named, full, engine)
    # Then they are all there
    assert engine.find_image(build) is not None
    assert engine.find_image(by_hand) is not None
    assert engine.find_image(f"{registry.address}/kept:mine") is not None


def test_an_image_whose_tag_has_moved_on_goes_without_its_successor(
    registry: StockedRegistry,
    protocol: WorkerProtocol,
    engine: DockerEngine,
    settings: Settings,
    full: Room,
    worker: SlotWorker,
) -> None:
    # Given a pulled image, and a build of somebody's that has taken its tag since
    image = registry.add("moves", "1", "echo 1 > /output/x")
    run(protocol, image)
    pulled = engine.find_image(image)
    assert pulled is not None
    build = registry.add("other", "1", "echo 2 > /output/x")
    engine._api.pull(build)
    engine._api.tag(build, *image.rsplit(":", 1))
    successor = engine.find_image(image)
    age(settings)
    # When the engine's disk is too full, it goes
    leaves(pulled.image_id, full, engine)
    # Then the other has its tag still
    assert engine.find_image(image) == successor
