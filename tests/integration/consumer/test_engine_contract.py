"""What ``Engine`` promises, held against the real engine and the fake that unit tests use."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from consumer.outside.docker_engine import DockerEngine
from consumer.outside.engine import Engine, LocalImage
from consumer.outside.errors import AbandonedError, NotFoundError, RefusedError
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import wait_until
from tests.rig.registry import Registry
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine

LABEL = "org.inferenceserver.contract-test"


SLEEP = ["sleep", "60"]


@dataclass
class Subject:
    """An engine with an image whose program says two lines and exits with 3 once it may."""

    engine: Engine
    image: str
    labels: dict[str, str]

    def create(self, name: str | None = None, *, command: list[str] | None = None, **config: Any) -> str:
        body = {"Image": self.image, "Labels": self.labels, "HostConfig": {"NetworkMode": "none"} | config}
        if command is not None:
            body["Entrypoint"] = command
        return self.engine.create_container(body, name)


def program(container: FakeContainer) -> int:
    if container.body.get("Entrypoint") == SLEEP:
        container.killed.wait(60)
    container.log += b"one\ntwo\n"
    return 3


@pytest.fixture(params=["real", "fake"])
def subject(request: pytest.FixtureRequest, engine: DockerEngine, images: Images) -> Iterator[Subject]:
    image = images.script("echo one; echo two; exit 3")
    labels = {LABEL: secrets.token_hex(8)}
    chosen: Engine = engine
    if request.param == "fake":
        chosen = FakeEngine(images={image: LocalImage(image_id="sha256:1")}, program=program)
    yield Subject(engine=chosen, image=image, labels=labels)
    for container in chosen.list_containers(labels):
        chosen.remove_container(container.name)
    for volume in chosen.list_volumes(labels):
        chosen.remove_volume(volume.name)


def test_an_exit_is_seen_from_before_the_start_and_from_after_it(subject: Subject) -> None:
    container = subject.create()
    early = subject.engine.watch_exit(container, before_start=True)
    subject.engine.start_container(container)
    assert early.result() == 3
    assert subject.engine.watch_exit(container).result() == 3


def test_a_container_is_created_then_exited_then_gone(subject: Subject) -> None:
    engine = subject.engine
    name = f"contract-{secrets.token_hex(8)}"
    container = subject.create(name)
    found = engine.find_container(name)
    assert found is not None
    assert (found.container_id, found.state, found.started, found.running) == (
        container,
        "created",
        False,
        False,
    )
    watch = engine.watch_exit(container, before_start=True)
    engine.start_container(container)
    watch.result()
    found = engine.find_container(container)
    assert found is not None
    assert (found.state, found.exit_code, found.started, found.running) == ("exited", 3, True, False)
    assert subject.labels.items() <= dict(found.labels).items()
    engine.remove_container(container)
    assert engine.find_container(container) is None


def test_the_log_is_followed_to_its_end_and_replayed(subject: Subject) -> None:
    container = subject.create()
    subject.engine.start_container(container)
    followed = b"".join(subject.engine.follow_logs(container))
    # Engines now and then end what they follow before the last lines, when these and the exit come together.
    assert b"one\ntwo\n".startswith(followed)
    assert subject.engine.watch_exit(container).result() == 3
    assert b"".join(subject.engine.follow_logs(container)) == b"one\ntwo\n"
    assert subject.engine.tail_logs(container, 1) == b"two\n"


def test_who_was_sent_a_signal_is_remembered(subject: Subject) -> None:
    # Given one that ends by itself, and one that is made to
    ended, sent = subject.create(), subject.create(command=SLEEP)
    for container in (ended, sent):
        subject.engine.start_container(container)
    subject.engine.signal_container(sent, "SIGKILL")
    for container, signaled in ((ended, False), (sent, True)):
        # When
        subject.engine.watch_exit(container).result()
        found = subject.engine.find_container(container)
        # Then
        assert found is not None
        assert subject.engine.was_signaled(found) is signaled


def test_what_has_gone_may_be_signaled_and_removed_again(subject: Subject) -> None:
    container = subject.create()
    subject.engine.signal_container(container, "SIGKILL")
    for _ in range(2):
        subject.engine.remove_container(container)
        subject.engine.remove_volume("contract-no-such-volume")
        subject.engine.signal_container(container, "SIGKILL")


def test_what_is_missing_is_told_as_such(subject: Subject) -> None:
    engine = subject.engine
    assert engine.find_image("contract/no-such-image:1") is None
    with pytest.raises(NotFoundError):
        engine.create_container({"Image": "contract/no-such-image:1"})
    with pytest.raises(NotFoundError):
        engine.watch_exit("no-such-container")
    with pytest.raises(NotFoundError):
        engine.follow_logs("no-such-container").close()


def test_a_name_is_given_once(subject: Subject) -> None:
    name = f"contract-{secrets.token_hex(8)}"
    subject.create(name)
    with pytest.raises(RefusedError) as caught:
        subject.create(name)
    assert caught.value.status == 409


def test_a_file_of_ours_is_seen_through_a_volume_without_a_start(subject: Subject, tmp_path: Path) -> None:
    # Given a directory of ours, shown by a volume in a container that is never started
    (tmp_path / "nonce").write_bytes(b"nonce")
    volume = f"contract-{secrets.token_hex(8)}"
    subject.engine.create_volume(volume, str(tmp_path), subject.labels)
    mount = {"Type": "volume", "Source": volume, "Target": "/probe", "ReadOnly": True}
    container = subject.create(Mounts=[mount])
    # Then its file can be read through the engine, and another cannot
    assert subject.engine.read_file(container, "/probe/nonce") == b"nonce"
    with pytest.raises(NotFoundError):
        subject.engine.read_file(container, "/probe/other")


def test_what_a_container_has_stays_until_it_has_gone(subject: Subject, tmp_path: Path) -> None:
    # Given a container, never started, with a volume
    volume = f"contract-{secrets.token_hex(8)}"
    subject.engine.create_volume(volume, str(tmp_path), subject.labels)
    container = subject.create(Mounts=[{"Type": "volume", "Source": volume, "Target": "/data"}])
    # Then neither its volume nor its image can be removed
    with pytest.raises(RefusedError) as caught:
        subject.engine.remove_volume(volume)
    assert caught.value.status == 409
    with pytest.raises(RefusedError):
        subject.engine.remove_image(subject.image)
    # And its mounts are told
    found = subject.engine.find_container(container)
    assert found is not None
    assert [(mount.kind, mount.destination) for mount in found.mounts] == [("volume", "/data")]
    # When it has gone, the volume may go
    subject.engine.remove_container(container)
    subject.engine.remove_volume(volume)


def test_an_image_goes_with_its_last_name(subject: Subject, images: Images) -> None:
    image = images.script("true")
    if isinstance(subject.engine, FakeEngine):
        subject.engine.images[image] = LocalImage(image_id="sha256:2")
    found = subject.engine.find_image(image)
    assert found is not None
    assert found.image_id in subject.engine.image_ids()
    for _ in range(2):
        subject.engine.remove_image(image)
    assert subject.engine.find_image(image) is None
    assert found.image_id not in subject.engine.image_ids()


def test_the_engine_tells_where_it_lives(subject: Subject) -> None:
    host = subject.engine.host()
    assert host.name
    assert host.data_root == "" or host.data_root.startswith("/")
    assert host.cpus >= 1
    assert host.memory_bytes > 0
    assert host.architecture
    assert host.engine_version


def test_the_engines_clock_is_that_of_its_containers(engine: DockerEngine, images: Images) -> None:
    container = engine.create_container(
        {"Image": images.script("true"), "HostConfig": {"NetworkMode": "none"}}
    )
    try:
        before = engine.host().now
        engine.start_container(container)
        found, after = engine.find_container(container), engine.host().now
        assert before is not None
        assert found is not None
        assert found.started_at is not None
        assert after is not None
        assert before <= found.started_at <= after
    finally:
        engine.remove_container(container)


def test_the_names_of_all_images_are_told(subject: Subject) -> None:
    assert subject.image in subject.engine.image_names()


def test_an_image_tells_which_variables_it_brings_and_a_container_its_image(
    engine: DockerEngine, images: Images
) -> None:
    tag = images.script("true", "ENV NVIDIA_VISIBLE_DEVICES=all")
    image = engine.find_image(tag)
    assert image is not None
    assert "NVIDIA_VISIBLE_DEVICES" in image.variables
    container = engine.create_container({"Image": tag, "HostConfig": {"NetworkMode": "none"}})
    try:
        found = engine.find_container(container)
        assert found is not None
        assert found.image_id == image.image_id
    finally:
        engine.remove_container(container)


def test_what_was_written_to_the_layer_is_counted(engine: DockerEngine, images: Images) -> None:
    image = images.script("dd if=/dev/zero of=/file bs=1000 count=100 2>/dev/null")
    container = engine.create_container({"Image": image, "HostConfig": {"NetworkMode": "none"}})
    try:
        watch = engine.watch_exit(container, before_start=True)
        engine.start_container(container)
        assert watch.result() == 0
        assert engine.layer_bytes(container) == 100_000
    finally:
        engine.remove_container(container)


def test_listings_are_by_all_labels(subject: Subject, tmp_path: Path) -> None:
    name = f"contract-{secrets.token_hex(8)}"
    container = subject.create(name)
    volume = f"contract-{secrets.token_hex(8)}"
    subject.engine.create_volume(volume, str(tmp_path), subject.labels)
    [listed] = subject.engine.list_containers(subject.labels)
    assert (listed.name, listed.given_name) == (container, name)
    assert [(item.name, item.given_name) for item in subject.engine.list_volumes(subject.labels)] == [
        (volume, volume)
    ]
    wanted = subject.labels | {LABEL + ".other": "x"}
    assert subject.engine.list_containers(wanted) == []
    assert subject.engine.list_volumes(wanted) == []
    wait_until(lambda: subject.engine.find_container(container) is not None)


def test_an_image_that_its_registry_does_not_have_is_not_found(subject: Subject) -> None:
    registry = Registry()
    try:
        with pytest.raises(NotFoundError, match="manifest unknown"):
            subject.engine.pull_image(f"{registry.address}/nobody/nothing:1", Event())
    finally:
        registry.close()


def test_a_pull_that_nobody_wants_any_more_is_not_begun(subject: Subject) -> None:
    abandoned = Event()
    abandoned.set()
    with pytest.raises(AbandonedError):
        subject.engine.pull_image("127.0.0.1:1/nobody/nothing:1", abandoned)


def test_a_network_is_made_once_and_removed_when_nobody_uses_it(subject: Subject) -> None:
    # Given a network with a container on it
    name = f"contract-{secrets.token_hex(8)}"
    network = subject.engine.ensure_network(name, subject.labels, {})
    assert subject.engine.ensure_network(name, subject.labels, {}) == network
    subject.create(NetworkMode=network)
    # When it is removed, and removed again
    for _ in range(2):
        subject.engine.remove_network(name)
    # Then another of the same name can be made and removed
    subject.engine.ensure_network(name, subject.labels, {})
    subject.engine.remove_network(name)
