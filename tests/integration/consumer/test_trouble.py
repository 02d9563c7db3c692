"""The server away, leases lost, slots killed: what a running task and its leftovers come to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.node.settings import Settings
from consumer.node.station import Station
from consumer.outside import labels
from consumer.outside.docker_engine import DockerEngine
from consumer.slot.worker import SlotWorker
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import WorkerProtocol, wait_until

ROOT = Path(__file__).parents[3]
SLOW = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.2; done; echo done > /output/x"


def models(engine: DockerEngine, settings: Settings) -> list[str]:
    wanted = {labels.INSTALLATION: settings.installation, labels.ROLE: labels.ROLE_MODEL}
    return [container.name for container in engine.list_containers(wanted)]


def test_a_stale_lease_stops_the_container_and_nothing_more_is_said(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, worker: SlotWorker
) -> None:
    # Given a running model
    task = protocol.submit(images.script("echo up; sleep 60"))
    wait_until(lambda: b"up" in task.log)
    # When its lease is given to another
    protocol.make_stale(task)
    # Then its container goes and no last word is said
    wait_until(lambda: not models(engine, settings))
    assert task.failure is None
    assert task.completion is None


def test_a_model_runs_on_while_the_server_is_away_and_is_committed_later(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, worker: SlotWorker
) -> None:
    # Given a running model
    task = protocol.submit(images.script("echo up; sleep 6; echo x > /output/x"))
    wait_until(lambda: b"up" in task.log)
    # When the server goes away until after its end
    protocol.away = True
    [container] = models(engine, settings)
    wait_until(lambda: not getattr(engine.find_container(container), "running", False))
    protocol.away = False
    # Then its output is committed all the same
    assert task.ended.wait(90)
    assert task.failure is None
    assert task.output_files() == {"x": b"x\n"}


def test_an_output_is_sent_again_after_trouble(
    protocol: WorkerProtocol, images: Images, worker: SlotWorker
) -> None:
    protocol.refuse_puts = 3
    task = protocol.submit(images.script("dd if=/dev/urandom of=/output/x bs=1M count=3"))
    assert task.ended.wait(90)
    assert task.failure is None
    assert len(task.output_files()["x"]) == 3 * 1024**2


def test_a_drain_hands_a_long_task_back(protocol: WorkerProtocol, images: Images, worker: SlotWorker) -> None:
    task = protocol.submit(images.script("echo up; sleep 60"))
    wait_until(lambda: b"up" in task.log)
    worker.drain()
    assert task.ended.wait(90)
    assert task.reason_code == "drained"


class TestPatientDrain:
    """A slot that lets a task run on for longer than this one takes, also on a busy machine."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, drain_seconds=20.0)

    def test_a_drain_lets_a_short_task_end(
        self, protocol: WorkerProtocol, images: Images, worker: SlotWorker
    ) -> None:
        task = protocol.submit(images.script("echo up; sleep 0.5; echo x > /output/x"))
        wait_until(lambda: b"up" in task.log)
        worker.drain()
        assert task.ended.wait(90)
        assert task.reason_code == "succeeded"


class SlotProcess:
    """A slot as a process of its own, which can be killed."""

    def __init__(self, settings: Settings) -> None:
        self._environment = os.environ | {
            "PRIVATE_API_URL": settings.private_api_url,
            "WORKER_KEY_FILE": str(settings.worker_key_file),
            "CONSUMER_DIRECTORY": str(settings.directory),
            "INSTALLATION": settings.installation,
            "NODE_NAME": settings.node,
            "CLAIM_WAIT_SECONDS": "0.3",
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "consumer", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=subprocess.PIPE)
        self._processes.append(process)
        return process

    def kill(self) -> None:
        self._processes[-1].kill()
        self._processes[-1].wait()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=90)


@pytest.fixture
def slot(settings: Settings, station: Station) -> Iterator[SlotProcess]:
    slot = SlotProcess(settings)
    yield slot
    slot.close()


def test_a_killed_slot_adopts_its_container_and_the_log_goes_on_without_a_gap(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    # Given a model that writes thirty lines, and its slot killed in the middle
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script(SLOW))
    wait_until(lambda: b"line 5" in task.log)
    [container] = models(engine, settings)
    slot.kill()
    # When the slot lives again
    slot.start("--slot", "cpu-0")
    # Then the same container is followed to its end and the log is whole
    assert task.ended.wait(90)
    assert task.failure is None
    assert bytes(task.log) == b"".join(b"line %d\n" % i for i in range(30))
    assert task.output_files() == {"x": b"done\n"}
    assert task.outputs_put == 1
    wait_until(lambda: not models(engine, settings))
    assert engine.find_container(container) is None


def test_a_killed_slot_goes_on_with_a_log_of_very_short_lines(
    protocol: WorkerProtocol, images: Images, slot: SlotProcess
) -> None:
    # Given a model whose log takes the engine seventy times its own size, and its slot killed in the middle
    slot.start("--slot", "cpu-0")
    script = "yes '' | dd bs=1000 count=50 iflag=fullblock 2>/dev/null; sleep 3; echo end; touch /output/x"
    task = protocol.submit(images.script(script), limits={"log_bytes": 60_000})
    wait_until(lambda: len(task.log) > 30_000)
    slot.kill()
    # When the slot lives again
    slot.start("--slot", "cpu-0")
    # Then nothing is missing
    assert task.ended.wait(90)
    assert task.failure is None
    assert bytes(task.log) == b"\n" * 50_000 + b"end\n"


def test_a_model_that_we_stopped_is_not_taken_for_one_that_the_machine_killed(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    # Given a model that was stopped at its limit while the server was away, and its slot killed then
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script("echo up; sleep 60"), limits={"time_seconds": 6})
    wait_until(lambda: b"up" in task.log)
    protocol.away = True
    [container] = models(engine, settings)
    wait_until(lambda: not getattr(engine.find_container(container), "running", False))
    slot.kill()
    # When both are back
    protocol.away = False
    slot.start("--slot", "cpu-0")
    # Then its owner learns why it ended
    assert task.ended.wait(90)
    assert task.reason_code == "timed_out"


def test_limits_hold_for_an_adopted_model_although_the_server_is_away(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    # Given a running model whose slot is killed, and no server
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script("echo up; sleep 60"), limits={"time_seconds": 6})
    wait_until(lambda: b"up" in task.log)
    [container] = models(engine, settings)
    slot.kill()
    protocol.away = True
    # When the slot lives again
    slot.start("--slot", "cpu-0")
    # Then the model is stopped at its limit
    wait_until(lambda: not getattr(engine.find_container(container), "running", False))
    protocol.away = False
    assert task.ended.wait(90)
    assert task.reason_code == "timed_out"


def test_a_container_that_ended_meanwhile_is_still_delivered(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    # Given a slot that is killed while its model runs, and the model's end
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script("echo up; sleep 6; echo x > /output/x"))
    wait_until(lambda: b"up" in task.log)
    [container] = models(engine, settings)
    slot.kill()
    wait_until(lambda: not getattr(engine.find_container(container), "running", False))
    # When the slot lives again
    slot.start("--slot", "cpu-0")
    # Then the result is committed
    assert task.ended.wait(90)
    assert task.failure is None
    assert task.output_files() == {"x": b"x\n"}


def test_a_container_that_vanished_meanwhile_is_run_again_under_the_same_lease(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script("echo up; sleep 6; echo x > /output/x"))
    wait_until(lambda: b"up" in task.log)
    [container] = models(engine, settings)
    slot.kill()
    engine.remove_container(container)
    slot.start("--slot", "cpu-0")
    assert task.ended.wait(90)
    assert task.failure is None
    assert bytes(task.log) == b"up\nup\n"


def test_what_a_lost_lease_left_is_removed_by_the_next_life(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, settings: Settings, slot: SlotProcess
) -> None:
    # Given a killed slot whose lease has ended
    slot.start("--slot", "cpu-0")
    task = protocol.submit(images.script("echo up; sleep 600"))
    wait_until(lambda: b"up" in task.log)
    slot.kill()
    protocol.make_stale(task)
    # When the slot lives again
    slot.start("--slot", "cpu-0")
    # Then nothing of the attempt is left, on the engine or the disk
    wait_until(lambda: not models(engine, settings))
    work = settings.directory / "slots" / "cpu-0" / "work"
    wait_until(lambda: len(list(work.iterdir())) <= 1)
    # And the slot works
    assert protocol.submit(images.script("touch /output/x")).ended.wait(90)


def test_the_parent_runs_its_slots_and_takes_them_along(
    protocol: WorkerProtocol, images: Images, slot: SlotProcess
) -> None:
    parent = slot.start()
    task = protocol.submit(images.script("touch /output/x"))
    assert task.ended.wait(90)
    parent.send_signal(signal.SIGTERM)
    parent.communicate(timeout=90)
    assert parent.returncode == 0


def test_the_check_passes_on_this_engine(protocol: WorkerProtocol, slot: SlotProcess) -> None:
    assert slot.start("--check").wait(90) == 0
