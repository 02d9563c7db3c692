"""A node's disks, small and really full: what leaves, what stays, and what becomes of tasks."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.bootstrap import build_room
from consumer.node.settings import Settings
from consumer.node.station import Station
from consumer.outside import labels
from consumer.outside.docker_engine import DockerEngine
from consumer.slot.worker import SlotWorker
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import MIB, Task, WorkerProtocol, facts_of, wait_until, zip_of

DISK_MIB = 64
USE = "cat /model/name > /output/name"
HOUR = 3600.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB at the consumer's directory."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    place = tmp_path / "consumer"
    place.mkdir()
    options = f"size={DISK_MIB}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "test", place], check=True)
    yield place
    # Lazily: a failed test may have left something in it, which must not keep it mounted.
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def settings(disk: Path, tmp_path: Path, protocol: WorkerProtocol) -> Settings:
    key = tmp_path / "worker.key"
    key.write_text("key\n")
    return Settings.from_environment(
        {
            "PRIVATE_API_URL": protocol.url,
            "WORKER_KEY_FILE": str(key),
            "CONSUMER_DIRECTORY": str(disk),
            "INSTALLATION": f"test-{secrets.token_hex(4)}",
            "NODE_NAME": "node",
            "CLAIM_WAIT_SECONDS": "0.3",
            "DRAIN_SECONDS": "1",
            "MINIMUM_FREE_BYTES": str(8 * MIB),
            "DISK_HIGH_PERCENT": "80",
            "DISK_LOW_PERCENT": "50",
        }
    )


class Node:
    """The disk of a node, with the contents that its tasks have brought."""

    def __init__(self, station: Station, protocol: WorkerProtocol, image: str) -> None:
        self._protocol = protocol
        self._image = image
        self._station = station
        self._contents: dict[str, dict[str, bytes]] = {}

    def task(self, name: str, size_mib: int = 0, image: str = "") -> Task:
        """A task of the model whose content has this name, and on its first use this size."""
        if name not in self._contents:
            # Of what cannot be made smaller, so that its zip needs as much again.
            weights = os.urandom(size_mib * MIB)
            self._contents[name] = {"name": name.encode(), "weights": weights}
        return self._protocol.submit(image or self._image, content=self._contents[name])

    def run(self, name: str, size_mib: int = 0) -> None:
        """Have a task use it to its end, and be cleared away: a content stays while a container has it."""
        task = self.task(name, size_mib)
        assert task.ended.wait(90)
        assert task.failure is None, task.failure
        assert task.output_files() == {"name": name.encode()}
        wait_until(self._is_clean, what="what the task left is removed")

    def _is_clean(self) -> bool:
        """Whether no model's container is left, and of the slot's workspaces only the next task's."""
        models = self._station.owner.shared_labels() | {labels.ROLE: labels.ROLE_MODEL}
        workspaces = self._station.workspaces.found()
        return not self._station.engine.list_containers(models) and len(workspaces) <= 1

    def age(self, *names: str) -> None:
        """Make these look unused for an hour and more, in this order."""
        for index, name in enumerate(names):
            moment = time.time() - HOUR + index
            os.utime(self._path(name).with_suffix(".used"), (moment, moment))

    @property
    def kept(self) -> set[str]:
        """The contents on the disk."""
        return {name for name in self._contents if self._path(name).is_dir()}

    @property
    def volumes(self) -> int:
        """How many contents have a volume."""
        wanted = self._station.owner.shared_labels() | {"org.inferenceserver.role": "content"}
        return len(self._station.engine.list_volumes(wanted))

    def _path(self, name: str) -> Path:
        facts = facts_of(zip_of(self._contents[name]))
        return self._station.settings.directory / "contents" / facts.sha256


@pytest.fixture
def node(station: Station, protocol: WorkerProtocol, images: Images) -> Node:
    return Node(station, protocol, images.script(USE))


def ballast(disk: Path, size_mib: float) -> Path:
    """A file of somebody else."""
    path = disk / f"ballast-{secrets.token_hex(2)}"
    path.write_bytes(b"x" * round(size_mib * MIB))
    return path


def fill_up_to(disk: Path, free_mib: float) -> Path:
    status = os.statvfs(disk)
    return ballast(disk, status.f_bavail * status.f_frsize / MIB - free_mib)


def test_above_the_high_watermark_the_least_recently_used_go(
    disk: Path, node: Node, station: Station, protocol: WorkerProtocol, worker: SlotWorker
) -> None:
    # Given three contents, the first of which was used again after the others
    for name in ("a", "b", "c", "a"):
        node.run(name, 12)
    node.age("b", "c", "a")
    station.room.tidy()
    assert node.kept == {"a", "b", "c"}
    # When the disk passes the high watermark
    ballast(disk, 17)
    station.room.tidy()
    # Then as many went as bring it to the low one, in the order of their last use, with their volumes
    assert node.kept == {"a"}
    assert node.volumes == 1
    # And what is wanted again is fetched again
    requests = protocol.content_requests
    node.run("a")
    assert protocol.content_requests == requests
    node.run("b")
    assert protocol.content_requests == requests + 1


def test_what_runs_is_kept_and_so_is_what_was_just_used(
    disk: Path, node: Node, station: Station, images: Images, worker: SlotWorker
) -> None:
    # Given a model that runs with the content that was used longest ago
    node.run("idle", 12)
    running = node.task("busy", 12, images.script("echo up; while [ ! -e /input/go ]; do sleep 0.1; done"))
    wait_until(lambda: b"up" in running.log)
    node.age("busy", "idle")
    # When the disk is too full
    ballast(disk, 30)
    station.room.tidy()
    # Then it stays
    assert node.kept == {"busy"}
    assert node.volumes == 1


def test_a_content_that_finds_no_room_makes_some(disk: Path, node: Node, worker: SlotWorker) -> None:
    # Given two contents on a disk that others fill as well, to below the watermark
    node.run("old", 10)
    node.run("young", 10)
    node.age("old", "young")
    ballast(disk, 20)
    # When a third comes, which needs room for its zip too
    node.run("new", 10)
    # Then no more went than it needed
    assert node.kept == {"young", "new"}


def test_contents_that_nobody_uses_go_after_their_time(
    node: Node, station: Station, settings: Settings, engine: DockerEngine, worker: SlotWorker
) -> None:
    # Given a content of a model that was deleted an hour ago, and another
    node.run("old", 1)
    node.run("young", 1)
    node.age("old")
    # When contents are kept for half an hour
    build_room(replace(settings, content_unused_seconds=HOUR / 2), engine).tidy()
    # Then
    assert node.kept == {"young"}


def test_what_a_killed_process_left_half_done_goes(
    disk: Path, node: Node, station: Station, worker: SlotWorker
) -> None:
    node.run("kept", 1)
    for suffix in ("incoming", "evicted"):
        left = disk / "contents" / f"{'0' * 64}.abcd.{suffix}" / "data"
        left.mkdir(parents=True)
        (left / "file").write_text("x")
    station.room.tidy()
    assert not list((disk / "contents").glob("0000*.abcd.*"))
    assert node.kept == {"kept"}


@pytest.fixture
def looks(station: Station, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What a slot in a hurry saw each time that it looked whether there is room."""
    monkeypatch.setattr("consumer.slot.worker.delays", lambda *_: itertools.repeat(0.05))
    seen: list[bool] = []
    suffices = station.room.suffices

    def noting() -> bool:
        seen.append(suffices())
        return seen[-1]

    monkeypatch.setattr(station.room, "suffices", noting)
    return seen


def test_a_node_without_room_takes_no_task_says_so_once_and_goes_on_by_itself(
    disk: Path,
    node: Node,
    protocol: WorkerProtocol,
    looks: list[bool],
    worker: SlotWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a slot at work, and a disk that others fill
    caplog.set_level(logging.INFO)
    node.run("content", 1)
    file = fill_up_to(disk, 4)
    wait_until(lambda: said(caplog, "node_full") == 1)
    # Then what was cached went first
    assert node.kept == set()
    # And no task is taken
    task = node.task("content")
    claims, looked = protocol.claims, len(looks)
    wait_until(lambda: len(looks) > looked + 5)
    assert not task.claimed
    assert protocol.claims == claims
    # When there is room again
    file.unlink()
    # Then the task runs
    assert task.ended.wait(90)
    assert task.failure is None
    # And each was said once
    assert (said(caplog, "node_full"), said(caplog, "node_has_room")) == (1, 1)


def said(caplog: pytest.LogCaptureFixture, action: str) -> int:
    return sum(getattr(record, "action", "") == action for record in caplog.records)


class TestFullInEarnest:
    """No space left on device."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        # So little that whoever looks once a second comes too late.
        return replace(settings, minimum_free_bytes=MIB)

    def test_while_the_input_is_unpacked(
        self, disk: Path, protocol: WorkerProtocol, images: Images, worker: SlotWorker
    ) -> None:
        # Given an input of small files, of which each takes a block
        files = {f"{index}.txt": b"x" for index in range(DISK_MIB * 256)}
        image = images.script("echo ran; touch /output/x")
        # When it is unpacked
        task = protocol.submit(image, files)
        assert task.ended.wait(90)
        # Then the node is at fault, not the input, and its model never ran
        assert task.reason_code == "node_full", task.failure
        assert bytes(task.log) == b""
        # And the node works on
        assert_works(disk, protocol, image)

    @pytest.mark.parametrize("ending", ["exit 1", "exit 0"], ids=["it fails", "it says that all is well"])
    def test_while_the_model_writes(
        self, disk: Path, protocol: WorkerProtocol, images: Images, worker: SlotWorker, ending: str
    ) -> None:
        # Given a model that may write more than there is
        flood = f"dd if=/dev/zero of=/output/x bs=64k || {ending}"
        image = images.script(f"[ -e /input/small ] && touch /output/x && exit; {flood}")
        # When it does
        task = protocol.submit(image, limits={"output_bytes": 1024 * MIB})
        assert task.ended.wait(90)
        # Then the node is at fault, whatever the model made of it
        assert task.reason_code == "node_full", task.failure
        assert_works(disk, protocol, image)

    def test_while_a_content_is_unpacked(
        self, disk: Path, protocol: WorkerProtocol, images: Images, worker: SlotWorker
    ) -> None:
        image = images.script("touch /output/x")
        files = {f"{index}.txt": b"x" for index in range(DISK_MIB * 256)}
        task = protocol.submit(image, content=files)
        assert task.ended.wait(90)
        assert task.reason_code == "node_full", task.failure
        assert_works(disk, protocol, image)


def assert_works(disk: Path, protocol: WorkerProtocol, image: str) -> None:
    task = protocol.submit(image, {"small": b"x"})
    assert task.ended.wait(90)
    assert task.failure is None, task.failure
    wait_until(lambda: used_mib(disk) < 1, 20, f"what the full one left is gone: {used_mib(disk)}")


def used_mib(disk: Path) -> float:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize / MIB
