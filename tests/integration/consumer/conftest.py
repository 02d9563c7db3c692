"""A real engine, tiny images made on the spot, and a slot's worker against an in-memory worker protocol."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import ImageNotFound

from consumer.bootstrap import build_station
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.node.station import Station
from consumer.outside import labels
from consumer.outside.docker_engine import DockerEngine
from consumer.slot.worker import SlotWorker
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import WorkerProtocol


@pytest.fixture(scope="session")
def engine() -> DockerEngine:
    return DockerEngine()


@pytest.fixture(scope="session")
def images(engine: DockerEngine) -> Iterator[Images]:
    images = Images(engine)
    yield images
    for tag in images.made:
        with suppress(ImageNotFound):
            engine._api.remove_image(tag, force=True)


@pytest.fixture
def protocol() -> Iterator[WorkerProtocol]:
    protocol = WorkerProtocol()
    yield protocol
    protocol.close()


@pytest.fixture
def settings(tmp_path: Path, protocol: WorkerProtocol) -> Settings:
    key = tmp_path / "worker.key"
    key.write_text("key\n")
    return Settings.from_environment(
        {
            "PRIVATE_API_URL": protocol.url,
            "WORKER_KEY_FILE": str(key),
            "CONSUMER_DIRECTORY": str(tmp_path / "consumer"),
            "INSTALLATION": f"test-{secrets.token_hex(4)}",
            "NODE_NAME": "node",
            "CLAIM_WAIT_SECONDS": "0.3",
            "DRAIN_SECONDS": "1",
        }
    )


@pytest.fixture
def station(settings: Settings, engine: DockerEngine) -> Iterator[Station]:
    station = build_station(settings, Slot(name="cpu-0"), engine=engine)
    yield station
    left = remains(engine, settings)
    for container in engine.list_containers({labels.INSTALLATION: settings.installation}):
        engine.remove_container(container.name)
    for volume in engine.list_volumes({labels.INSTALLATION: settings.installation}):
        engine.remove_volume(volume.name)
    station.network.remove()
    assert left == [], "a test leaves no container and no volume but those of contents"


def remains(engine: DockerEngine, settings: Settings) -> list[str]:
    """What the installation still has on the engine, contents excepted."""
    wanted = {labels.INSTALLATION: settings.installation}
    found = engine.list_containers(wanted) + engine.list_volumes(wanted)
    return [item.name for item in found if item.labels.get(labels.ROLE) != labels.ROLE_CONTENT]


@pytest.fixture
def worker(station: Station) -> Iterator[SlotWorker]:
    """A slot at work in a thread of the test."""
    worker = SlotWorker(station)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield worker
    worker.drain()
    thread.join(90)
    assert not thread.is_alive(), "a drained slot ends"
