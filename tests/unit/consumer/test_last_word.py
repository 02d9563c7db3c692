"""The last word of an attempt: what the server does not take, and what the next life of a slot says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from consumer.attempt.ending import ending_of, event_of
from consumer.attempt.events import Prevented, Stopped
from consumer.attempt.run import Attempt
from consumer.attempt.verdict import Facts, Stop
from consumer.node.record import Ending
from consumer.outside.errors import CallRefusedError
from consumer.outside.labels import TOKEN
from consumer.slot.cleaning import Cleaner
from consumer.slot.recovery import recover
from contracts.messages import Limits
from contracts.problems import ProblemCode
from contracts.reasons import ReasonCode
from tests.unit.consumer.attempt_bench import Bench, until_killed, wait_until
from tests.unit.consumer.consumer_leases import lease
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine

SHORT = Limits(**(lease().limits.to_json() | {"time_seconds": 0.05}))


def mismatch() -> CallRefusedError:
    return CallRefusedError(422, ProblemCode.CHECKSUM_MISMATCH, "upload it again")


def test_an_output_that_the_server_lost_is_sent_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.server.refusals = [mismatch()]
    bench.run()
    assert bench.code is None
    assert bench.server.puts == 2


def test_an_output_that_the_server_always_loses_is_our_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.server.refusals = [mismatch() for _ in range(100)]
    bench.run()
    assert bench.code is ReasonCode.STORAGE_FAILED
    assert bench.server.puts == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_result_waits_until_the_server_knows_the_key_again(tmp_path: Path, status: int) -> None:
    bench = Bench(tmp_path)
    bench.server.refusals = [CallRefusedError(status, "", "") for _ in range(3)]
    bench.run()
    assert bench.code is None
    assert bench.server.puts == 1


def test_a_completion_that_is_refused_for_good_becomes_our_failure(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.server.refusals = [CallRefusedError(422, ProblemCode.INVALID_FIELD, "output: no")]
    bench.run()
    assert bench.code is ReasonCode.STORAGE_FAILED
    assert bench.server.failure is not None
    assert "output: no" in bench.server.failure.reason


class KilledWithItsSlot(BaseException):
    """Stands for kill -9 of the slot's process."""


class SignalsOnce(FakeEngine):
    """The slot dies right after its first signal has left."""

    died = False

    def signal_container(self, container_id: str, signal: str) -> None:
        super().signal_container(container_id, signal)
        if not self.died:
            self.died = True
            raise KilledWithItsSlot


def until_asked(container: FakeContainer) -> int:
    wait_until(lambda: container.signals)
    return 137 if container.signals == ["SIGKILL"] else 143


def next_life(bench: Bench) -> Attempt:
    recovered = recover(bench.station, Cleaner(bench.station.workspaces), lambda _seconds: False)
    assert recovered is not None
    assert recovered.resumption.container is not None
    return Attempt(bench.station, recovered.record.lease, recovered.workspace, "holder", recovered.resumption)


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (Stop.CANCELED, ReasonCode.CANCELED_BY_USER),
        (Stop.DRAINED, ReasonCode.DRAINED),
        (Stop.TIMED_OUT, ReasonCode.TIMED_OUT),
        (Stop.OUTPUT_TOO_LARGE, ReasonCode.OUTPUT_TOO_LARGE),
        (Stop.NODE_FULL, ReasonCode.NODE_FULL),
    ],
)
def test_a_slot_killed_after_its_signal_says_in_its_next_life_why_it_sent_it(
    tmp_path: Path, stop: Stop, code: ReasonCode
) -> None:
    # Given a model that we end, and a slot that dies when the signal has left
    bench = Bench(tmp_path, until_asked, kind=SignalsOnce)

    def run() -> None:
        with pytest.raises(KilledWithItsSlot):
            bench.attempt.run()

    thread = Thread(target=run)
    thread.start()
    wait_until(lambda: any(c.facts.running for c in bench.engine.containers.values()))
    bench.attempt.emit(Stopped(stop=stop, detail="because"))
    thread.join(10)
    [container] = bench.engine.containers.values()
    assert container.ended.wait(10)
    # When it lives again
    next_life(bench).run()
    # Then neither the model nor the machine is blamed
    assert bench.code is code


def test_a_record_that_takes_no_note_keeps_no_container_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, until_killed, limits=SHORT)

    def full(_record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.station.record, "write", full)
    bench.run()
    assert bench.code is ReasonCode.TIMED_OUT


def test_limits_hold_in_the_next_life_although_the_server_is_away(tmp_path: Path) -> None:
    # Given a running model of an earlier life, past its time, and no server
    bench = Bench(tmp_path, until_killed, limits=SHORT)
    engine = bench.engine
    body = {"Image": "repo/model:1", "HostConfig": {"Mounts": []}}
    engine.create_container(body, bench.workspace.container_name)
    [container] = engine.containers.values()
    container.facts = replace(container.facts, labels={TOKEN: str(bench.lease.token)})
    engine.start_container(container.facts.container_id)
    bench.server.away = True
    # When the slot lives again
    thread = Thread(target=next_life(bench).run)
    thread.start()
    # Then the model is killed all the same
    assert container.killed.wait(10)
    # And the server hears of it when it is back
    bench.server.away = False
    thread.join(10)
    assert not thread.is_alive()
    assert bench.code is ReasonCode.TIMED_OUT


def test_a_prevented_attempt_keeps_its_code_over_a_life() -> None:
    facts = Facts(lease=lease(), stop=Stop.PREVENTED, detail="why", prevented_code=ReasonCode.ENGINE_FAILED)
    ending = ending_of(facts)
    assert ending == Ending(cause="PREVENTED", detail="why", code=ReasonCode.ENGINE_FAILED)
    assert event_of(ending) == Prevented(code=ReasonCode.ENGINE_FAILED, sentence="why")
