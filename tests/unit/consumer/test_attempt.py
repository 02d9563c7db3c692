"""The flow of an attempt, with an engine and a server in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.outside.engine import ContainerFacts
from consumer.outside.errors import EngineAwayError
from consumer.slot.cleaning import remove_other_slots
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode
from contracts.states import Phase
from tests.unit.consumer.attempt_bench import Bench, echo, until_killed, wait_until
from tests.unit.consumer.consumer_leases import lease
from tests.unit.consumer.fake_engine import FakeContainer
from tests.unit.consumer.fake_server import facts_of


def test_a_success_is_stored_then_committed_with_its_log(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    server = bench.run()
    assert bench.code is None
    assert server.completion is not None
    assert server.completion.output == facts_of(server.output or b"")
    assert bytes(server.log) == b"working\n"
    assert Phase.RUNNING in server.phases


def test_an_output_that_arrived_damaged_is_sent_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.server.damaged_puts = 2
    bench.run()
    assert bench.code is None


def test_an_input_that_never_matches_its_hash_is_our_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path, input=BlobFacts(size_bytes=3, sha256="0" * 64))
    bench.server.input = b"abc"
    bench.run()
    assert bench.code is ReasonCode.STORAGE_FAILED


def test_a_bad_input_zip_is_the_callers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, input=facts_of(b"no zip"))
    bench.server.input = b"no zip"
    bench.run()
    assert bench.code is ReasonCode.INPUT_INVALID


def test_a_missing_image_ends_it_before_anything_is_created(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.images.clear()
    bench.run()
    assert bench.code is ReasonCode.IMAGE_UNAVAILABLE
    assert bench.engine.containers == {}


def test_a_refused_start_is_the_images_fault(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.refuse_start = "OCI runtime create failed: not a directory"
    bench.run()
    assert bench.code is ReasonCode.IMAGE_INVALID


def test_an_engine_that_breaks_off_is_our_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an engine that goes away while the model runs, and patience of none
    monkeypatch.setattr("consumer.attempt.observation.ENGINE_PATIENCE_SECONDS", 0.0)
    bench = Bench(tmp_path)

    class Broken:
        def result(self) -> int:
            raise EngineAwayError("broke off")

    bench.engine.watch_exit = lambda *_args, **_kwargs: Broken()  # type: ignore[assignment, method-assign]
    # When the attempt runs
    bench.run()
    # Then it is to be tried again
    assert bench.code is ReasonCode.ENGINE_FAILED


def test_a_child_out_of_memory_is_no_success(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.engine.oom_killed = True
    bench.run()
    assert bench.code is ReasonCode.OUT_OF_MEMORY


def test_the_engine_may_hear_of_the_lack_of_memory_after_the_end(tmp_path: Path) -> None:
    # Given a killed model, of which the engine knows the reason only when it is asked for the third time
    bench = Bench(tmp_path, lambda _: 137)
    seen, times = bench.engine.find_container, iter(range(100))

    def find(container_id: str) -> ContainerFacts | None:
        facts = seen(container_id)
        if facts is None or facts.state != "exited":
            return facts
        return replace(facts, oom_killed=next(times) >= 2)

    bench.engine.find_container = find  # type: ignore[method-assign]
    # When
    bench.run()
    # Then it is the model's failure, not the engine's
    assert bench.code is ReasonCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("kernel_kills", "signals", "code"),
    [
        (1, [], ReasonCode.OUT_OF_MEMORY),
        (1, ["SIGKILL"], ReasonCode.ENGINE_FAILED),
        (0, [], ReasonCode.ENGINE_FAILED),
    ],
)
def test_what_the_engine_never_hears_of_the_kernel_has_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_kills: int, signals: list[str], code: ReasonCode
) -> None:
    # Given a model that ends as if it had been killed; the kernel killed something, or somebody asked
    monkeypatch.setattr("consumer.attempt.ending._OOM_SECONDS", 0.05)

    def program(container: FakeContainer) -> int:
        container.signals += signals
        bench.engine.kernel_kills += kernel_kills
        return 137

    bench = Bench(tmp_path, program)
    # When, then
    bench.run()
    assert bench.code is code


def test_a_cancel_asks_first_and_kills_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a running model that does not listen
    monkeypatch.setattr("consumer.attempt.ending.GRACE_SECONDS", 0.05)
    bench = Bench(tmp_path, until_killed)
    thread = bench.run_beside()
    wait_until(lambda: any(c.facts.running for c in bench.engine.containers.values()))
    # When a cancel is requested
    bench.server.cancel_requested = True
    thread.join(10)
    # Then it is asked, then killed, and committed as canceled
    [container] = bench.engine.containers.values()
    assert container.signals == ["SIGTERM", "SIGKILL"]
    assert bench.code is ReasonCode.CANCELED_BY_USER


def test_after_a_lost_lease_nothing_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, until_killed)
    thread = bench.run_beside()
    wait_until(lambda: any(c.facts.running for c in bench.engine.containers.values()))
    bench.server.stale = True
    thread.join(10)
    assert not thread.is_alive()
    assert (bench.server.completion, bench.server.failure) == (None, None)
    [container] = bench.engine.containers.values()
    assert container.killed.is_set()


def test_a_server_that_is_away_never_stops_a_model(tmp_path: Path) -> None:
    # Given a model that ends while the server is away
    may_end = threading.Event()

    def program(container: FakeContainer) -> int:
        may_end.wait(10)
        return echo(container)

    bench = Bench(tmp_path, program)
    thread = bench.run_beside()
    wait_until(lambda: Phase.RUNNING in bench.server.phases)
    bench.server.away = True
    may_end.set()
    wait_until(lambda: all(c.ended.is_set() for c in bench.engine.containers.values()))
    # When it is back
    bench.server.away = False
    thread.join(10)
    # Then the result is committed
    assert bench.code is None


def test_a_model_over_its_time_is_killed(tmp_path: Path) -> None:
    limits = lease().limits
    bench = Bench(tmp_path, until_killed, limits=type(limits)(**(limits.to_json() | {"time_seconds": 0.05})))
    bench.run()
    assert bench.code is ReasonCode.TIMED_OUT


def test_a_workspace_is_gone_after_cleaning_and_its_container_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run()
    bench.cleaner.start()
    bench.cleaner.discard(bench.workspace, bench.attempt.settle)
    bench.cleaner.finish(10)
    assert bench.engine.containers == {}
    assert bench.engine.volumes == {}
    assert not bench.workspace.root.exists()


def test_a_sweep_spares_what_is_in_use_and_what_is_not_ours(tmp_path: Path) -> None:
    # Given a workspace in use, a leftover of ours, and a volume of another slot
    bench = Bench(tmp_path)
    other = Bench(tmp_path / "other")
    other.engine.volumes |= bench.engine.volumes
    bench.engine.volumes |= other.engine.volumes
    leftover = bench.station.workspaces.named("f" * 16)
    bench.station.workspaces.create(leftover)
    # When it sweeps
    bench.cleaner.sweep()
    # Then only the leftover is gone
    assert not leftover.root.exists()
    assert bench.workspace.root.exists()
    assert set(bench.engine.volumes) == {
        space.volume(part)
        for space in (bench.workspace, other.workspace)
        for part in ("input", "output", "progress")
    }


def test_slots_that_are_no_more_leave_nothing_and_others_keep_everything(tmp_path: Path) -> None:
    # Given a workspace of a slot, and content that belongs to none
    bench = Bench(tmp_path)
    owner, slots = bench.station.owner, tmp_path / "slots"
    bench.engine.create_volume("content", "/nowhere", owner.shared_labels())
    # When the node still has the slot, everything stays
    remove_other_slots(bench.engine, owner, slots, {"cpu-0"})
    assert bench.workspace.root.exists()
    assert len(bench.engine.volumes) == 4
    # And when it has it no more, only the content does
    remove_other_slots(bench.engine, owner, slots, {"cpu-1"})
    assert not bench.workspace.root.exists()
    assert list(bench.engine.volumes) == ["content"]
