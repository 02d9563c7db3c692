"""A slot and its node go on although something of theirs cannot be removed, written or started."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from consumer.node.slots import Slot
from consumer.outside.errors import RefusedError
from consumer.slot.cleaning import Cleaner, remove_other_slots
from consumer.slot.recovery import recover
from consumer.slot.worker import SlotWorker
from consumer.supervisor import Child
from tests.unit.consumer.attempt_bench import Bench, echo, until_killed, wait_until
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine


class Clinging(FakeEngine):
    """Never lets go of the container of one workspace, although it has ended."""

    clings_to = "a" * 16

    def remove_container(self, container_id: str) -> None:
        if container_id.endswith(self.clings_to):
            raise RefusedError(500, "driver failed to remove root filesystem: device or resource busy")
        super().remove_container(container_id)


def model_or_holder(container: FakeContainer) -> int:
    # The holder is a container too.
    return echo(container) if "Mounts" in container.body["HostConfig"] else until_killed(container)


def test_a_cleaner_outlives_an_attempt_whose_threads_cannot_be_awaited(tmp_path: Path) -> None:
    # Given an attempt one of whose threads never began
    bench = Bench(tmp_path)
    bench.cleaner.start()
    # When it is handed over, and another after it
    bench.cleaner.discard(bench.workspace, lambda _seconds: threading.Thread().join())
    second = bench.cleaner.create()
    bench.cleaner.discard(second)
    # Then both are removed
    wait_until(lambda: not bench.workspace.root.exists() and not second.root.exists())
    bench.cleaner.finish(10)


def test_a_leftover_that_cannot_be_removed_keeps_no_other(tmp_path: Path) -> None:
    # Given two leftovers, of the first of which the engine will not let go
    bench = Bench(tmp_path, kind=Clinging)
    bench.cleaner.adopt(bench.workspace.workspace_id)
    first, second = (bench.station.workspaces.named(letter * 16) for letter in "ab")
    bench.station.workspaces.create(first)
    bench.station.workspaces.create(second)
    # When they are swept
    with pytest.raises(RefusedError):
        bench.cleaner.sweep()
    # Then the other has gone
    assert bench.station.workspaces.found() == {bench.workspace.workspace_id, first.workspace_id}


def test_a_slot_takes_work_beside_an_ended_container_that_cannot_be_removed(tmp_path: Path) -> None:
    # Given a leftover whose container does not run, and cannot be removed
    bench = Bench(tmp_path, model_or_holder, kind=Clinging)
    bench.station.record.remove()
    bench.station.workspaces.create(bench.station.workspaces.named("a" * 16))
    bench.server.leases.append(bench.lease)
    # When the slot begins
    worker = SlotWorker(bench.station)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        # Then it works all the same
        wait_until(lambda: bench.server.completion is not None)
    finally:
        worker.drain()
        thread.join(20)


def test_an_attempt_that_cannot_begin_again_leaves_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an attempt that has to begin again, on a disk that takes no record
    bench = Bench(tmp_path)
    cleaner = Cleaner(bench.station.workspaces)
    cleaner.start()

    def full(_record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bench.station.record, "write", full)
    # When the slot tries that more than once
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            recover(bench.station, cleaner, lambda _seconds: False)
    # Then only what it began with is there
    wait_until(lambda: bench.station.workspaces.found() == {bench.workspace.workspace_id})
    cleaner.finish(10)


def test_volumes_that_somebody_has_pruned_are_there_again_before_the_next_task(tmp_path: Path) -> None:
    # Given an idle slot, whose next workspace no container has yet
    bench = Bench(tmp_path, model_or_holder)
    bench.station.record.remove()
    worker = SlotWorker(bench.station)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        first = bench.workspace.volume("input")
        wait_until(lambda: first not in bench.engine.volumes and len(bench.engine.volumes) == 3)
        made = set(bench.engine.volumes)
        # When somebody prunes the engine's volumes
        bench.engine.volumes.clear()
        # Then they are made again: an engine would make empty ones of its own for a container that names them
        wait_until(lambda: set(bench.engine.volumes) == made)
    finally:
        worker.drain()
        thread.join(20)


def test_what_cannot_be_removed_of_another_slot_keeps_no_node_from_starting(tmp_path: Path) -> None:
    # Given a slot that the node has no more, and an engine that keeps one of its volumes
    class Forgetful(FakeEngine):
        def remove_volume(self, name: str) -> None:
            if name.endswith("-input"):
                raise RefusedError(500, f"remove {name}: volume has active mounts")
            super().remove_volume(name)

    bench = Bench(tmp_path, kind=Forgetful)
    # When the node starts
    remove_other_slots(bench.engine, bench.station.owner, tmp_path / "slots", set())
    # Then all else has gone
    assert set(bench.engine.volumes) == {bench.workspace.volume("input")}
    assert not bench.workspace.root.exists()


def test_a_machine_that_starts_no_process_for_a_moment_does_not_end_the_parent() -> None:
    # Given a machine without room for another process
    refusals = [BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")]
    lives: list[subprocess.Popen[bytes]] = []

    def start(_slot: Slot) -> subprocess.Popen[bytes]:
        if refusals:
            raise refusals.pop()
        lives.append(subprocess.Popen([sys.executable, "-c", ""]))
        return lives[-1]

    child = Child(Slot(name="cpu-0"), start)

    def looked_after() -> bool:
        child.keep_alive()
        return bool(lives)

    # Then the slot is started once there is
    wait_until(looked_after)
    lives[0].wait()
