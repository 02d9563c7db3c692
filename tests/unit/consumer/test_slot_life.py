"""A slot's worker and its cleaner in trouble: one model at a time, nothing lost, nothing left."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from consumer.node.intake import Closed
from consumer.outside.engine import ContainerFacts
from consumer.outside.errors import CallRefusedError, EngineAwayError, RefusedError
from consumer.slot import worker as worker_room
from consumer.slot.cleaning import Cleaner, make_way
from consumer.slot.worker import SlotWorker
from contracts.reasons import ReasonCode
from tests.unit.consumer.attempt_bench import Bench, echo, until_killed, wait_until
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine


class Crowded(FakeEngine):
    """Notes whether two models ever ran at once."""

    crowded = False

    def start_container(self, container_id: str) -> None:
        models = [c for c in self.containers.values() if "workspace" in str(c.facts.labels)]
        self.crowded |= any(c.facts.running for c in models)
        super().start_container(container_id)


class Stubborn(Crowded):
    """Containers that no signal ends, and that go only when removed for the third time."""

    removals = 0

    def signal_container(self, container_id: str, signal: str) -> None:
        """Nothing comes of it."""

    def remove_container(self, container_id: str) -> None:
        container = self._by(container_id)
        if container is not None and container.facts.running:
            self.removals += 1
            if self.removals < 3:
                return
        super().remove_container(container_id)


class Deaf(Crowded):
    """The first exit watch breaks off although its container runs."""

    broke_off = False

    def watch_exit(self, container_id: str, *, before_start: bool = False) -> Any:
        if self.broke_off:
            return super().watch_exit(container_id)
        self.broke_off = True
        return _BrokenWatch()


class _BrokenWatch:
    def result(self) -> int:
        raise EngineAwayError("broke off")

    def close(self) -> None:
        """There is nothing to close."""


@contextmanager
def at_work(bench: Bench) -> Iterator[SlotWorker]:
    bench.station.record.remove()
    worker = SlotWorker(bench.station)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.drain()
        thread.join(20)
        assert not thread.is_alive()


def hand_out(bench: Bench) -> None:
    with bench.server.changed:
        bench.server.leases.append(bench.lease)
        bench.server.changed.notify_all()


def model_runs(bench: Bench) -> bool:
    names = [space.container_name for space in spaces(bench)]
    return any(c.facts.running and c.name in names for c in list(bench.engine.containers.values()))


def spaces(bench: Bench) -> list[Any]:
    return [bench.station.workspaces.named(found) for found in bench.station.workspaces.found()]


class FirstHangs:
    """The first model runs until it is killed, the others echo."""

    def __init__(self) -> None:
        self._runs = 0

    def __call__(self, container: FakeContainer) -> int:
        self._runs += 1
        return until_killed(container) if self._runs == 1 else echo(container)


def model_program() -> Any:
    models = FirstHangs()

    def program(container: FakeContainer) -> int:
        # The holder is a container too.
        return models(container) if "Mounts" in container.body["HostConfig"] else until_killed(container)

    return program


def test_no_model_runs_beside_one_that_would_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a canceled model that no signal ends
    monkeypatch.setattr("consumer.attempt.ending.KILL_SECONDS", 0.05)
    monkeypatch.setattr("consumer.attempt.logs.END_SECONDS", 0.05)
    monkeypatch.setattr("consumer.attempt.ending.GRACE_SECONDS", 0.05)
    bench = Bench(tmp_path, model_program(), kind=Stubborn)
    with at_work(bench):
        hand_out(bench)
        wait_until(lambda: model_runs(bench))
        bench.server.cancel_requested = True
        wait_until(lambda: bench.server.failure is not None)
        bench.server.cancel_requested = False
        # When the slot takes the next task
        hand_out(bench)
        wait_until(lambda: bench.server.completion is not None)
    # Then the first was gone
    assert isinstance(bench.engine, Stubborn)
    assert bench.engine.removals >= 3
    assert not bench.engine.crowded


def test_no_model_runs_beside_one_that_was_lost_sight_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a model that runs on although its engine seems lost
    monkeypatch.setattr("consumer.attempt.observation.ENGINE_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("consumer.attempt.logs.END_SECONDS", 0.05)
    bench = Bench(tmp_path, model_program(), kind=Deaf)
    with at_work(bench):
        hand_out(bench)
        wait_until(lambda: bench.server.failure is not None)
        # When the slot takes the next task
        hand_out(bench)
        wait_until(lambda: bench.server.completion is not None)
    # Then the first was gone
    assert isinstance(bench.engine, Deaf)
    assert bench.server.failure is not None
    assert bench.server.failure.reason_code is ReasonCode.ENGINE_FAILED
    assert not bench.engine.crowded


def test_making_way_waits_until_the_container_is_gone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    answers = iter([True, True, False])

    class Slow(FakeEngine):
        def find_container(self, name_or_id: str) -> ContainerFacts | None:
            state = ContainerFacts(
                container_id="c", state="removing", exit_code=0, oom_killed=False, started_at=1.0
            )
            return state if next(answers) else None

    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    make_way(Slow(), bench.workspace, wait)
    assert len(pauses) == 2


def test_a_task_whose_record_cannot_be_written_goes_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a slot whose disk has just filled up
    bench = Bench(tmp_path, model_program())

    def full(_record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with at_work(bench):
        wait_until(lambda: len(spaces(bench)) == 1)
        monkeypatch.setattr(bench.station.record, "write", full)
        # When it claims a task
        hand_out(bench)
        # Then the server hears of it
        wait_until(lambda: bench.server.failure is not None)
    assert bench.code is ReasonCode.NODE_FULL
    assert spaces(bench) == []


def test_a_slot_that_fails_in_the_middle_says_so_and_leaves_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a slot whose disk fails when the model has just been started
    bench = Bench(tmp_path, until_killed)

    def broken(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("consumer.attempt.observation.Observation.start", broken)
    with at_work(bench):
        hand_out(bench)
        # Then the server hears of it, the container is gone and so is the record
        wait_until(lambda: bench.server.failure is not None)
        wait_until(lambda: not model_runs(bench))
        wait_until(lambda: bench.station.record.read() is None)
    assert bench.code is ReasonCode.STORAGE_FAILED
    assert bench.engine.containers == {}


def test_a_workspace_that_could_not_be_made_is_a_leftover(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cleaner.adopt(bench.workspace.workspace_id)
    bench.engine.away = True
    with pytest.raises(EngineAwayError):
        bench.cleaner.create()
    bench.engine.away = False
    bench.cleaner.sweep()
    assert [space.root for space in spaces(bench)] == [bench.workspace.root]


def test_a_busy_slot_sweeps_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a leftover, and a slot that never lets its cleaner rest
    monkeypatch.setattr("consumer.slot.cleaning.SWEEP_SECONDS", 0.2)
    bench = Bench(tmp_path)
    leftover = bench.station.workspaces.named("f" * 16)
    bench.station.workspaces.create(leftover)
    cleaner = Cleaner(bench.station.workspaces)
    cleaner.adopt(bench.workspace.workspace_id)
    cleaner.start()
    deadline = time.monotonic() + 5
    # When workspaces keep coming
    while leftover.root.exists():
        assert time.monotonic() < deadline
        cleaner.discard(cleaner.create(), lambda _seconds: time.sleep(0.01))
    # Then the leftover goes
    cleaner.finish(10)
    assert spaces(bench) == [bench.workspace]


class Forgetful(FakeEngine):
    """Keeps every input volume, as an engine does that was restarted with its containers alive."""

    def remove_volume(self, name: str) -> None:
        if name.endswith("-input"):
            raise RefusedError(500, f"remove {name}: volume has active mounts")
        super().remove_volume(name)


def test_a_volume_that_the_engine_keeps_keeps_nothing_else(tmp_path: Path) -> None:
    # Given two leftovers, of each of which the engine will not let a volume go
    bench = Bench(tmp_path, kind=Forgetful)
    bench.cleaner.adopt(bench.workspace.workspace_id)
    leftovers = [bench.station.workspaces.named(letter * 16) for letter in "ab"]
    for leftover in leftovers:
        bench.station.workspaces.create(leftover)
    # When they are removed
    bench.cleaner.sweep()
    # Then all of their data has gone, and all volumes but those
    assert [leftover.root.exists() for leftover in leftovers] == [False, False]
    left = {name for name in bench.engine.volumes if bench.workspace.workspace_id not in name}
    assert left == {leftover.volume("input") for leftover in leftovers}


def test_what_a_container_still_has_is_kept_for_later(tmp_path: Path) -> None:
    # Given a leftover whose container the engine is still removing
    class Slow(FakeEngine):
        def remove_volume(self, name: str) -> None:
            raise RefusedError(409, f"remove {name}: volume is in use")

    bench = Bench(tmp_path, kind=Slow)
    with pytest.raises(RefusedError):
        bench.station.workspaces.remove(bench.workspace)
    assert bench.workspace.output.is_dir()


def test_what_could_not_be_removed_goes_soon_after_the_engine_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a finished attempt whose engine is away
    monkeypatch.setattr("consumer.slot.cleaning.RETRY_SECONDS", 0.05)
    bench = Bench(tmp_path)
    bench.engine.away = True
    bench.cleaner.start()
    bench.cleaner.discard(bench.workspace)
    wait_until(lambda: "cleaning failed" in caplog.text)
    assert bench.workspace.root.exists()
    # When it is back
    bench.engine.away = False
    # Then nobody waits for the next minute's sweep
    wait_until(lambda: spaces(bench) == [])
    bench.cleaner.finish(10)


def echo_after(gate: threading.Event) -> Any:
    def program(container: FakeContainer) -> int:
        # The holder is a container too.
        if "Mounts" not in container.body["HostConfig"]:
            return until_killed(container)
        gate.wait(20)
        return echo(container)

    return program


def test_a_slot_of_a_closed_node_takes_nothing_more_and_lets_what_runs_end(tmp_path: Path) -> None:
    # Given a model at work
    gate = threading.Event()
    bench = Bench(tmp_path, echo_after(gate))
    with at_work(bench):
        hand_out(bench)
        wait_until(lambda: model_runs(bench))
        # When the node is drained
        bench.station.intake.close(Closed.DRAINING)
        gate.set()
        # Then it goes on to its end
        wait_until(lambda: bench.server.completion is not None)
        # And the next task is left to others
        bench.server.completion = None
        hand_out(bench)
        time.sleep(3 * worker_room._CLOSED_SECONDS)
        assert bench.server.leases == [bench.lease]
        # Until the node is open again
        bench.station.intake.open()
        wait_until(lambda: bench.server.completion is not None)


def test_a_claim_that_is_refused_for_draining_is_no_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a server that knows of the draining before the node does
    caplog.set_level("INFO")
    gate = threading.Event()
    gate.set()
    bench = Bench(tmp_path, echo_after(gate))
    bench.server.claim_refusal = CallRefusedError(409, "node_draining", "drained")
    with at_work(bench):
        wait_until(lambda: "being drained" in caplog.text)
        # When it is resumed
        bench.server.claim_refusal = None
        hand_out(bench)
        # Then the slot is back within moments
        wait_until(lambda: bench.server.completion is not None)
    assert "not ready" not in caplog.text
