"""The walls between a model, the node and the next model, on a real engine."""

from __future__ import annotations

import pytest

from consumer.node.station import Station
from consumer.outside import labels
from consumer.outside.docker_engine import DockerEngine
from consumer.slot.worker import SlotWorker
from contracts.messages import Sandbox, SandboxProfile
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import MIB, Task, WorkerProtocol, wait_until

BOTH = pytest.mark.parametrize("profile", list(SandboxProfile), ids=lambda profile: profile.value)
# What the engine puts into every container; whoever shares a network namespace may share them too.
ENGINES_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


def ended(task: Task) -> Task:
    assert task.ended.wait(90), f"no end; log: {bytes(task.log)!r}"
    return task


@pytest.mark.usefixtures("worker")
@BOTH
def test_nothing_can_be_left_in_the_engines_files_for_the_next_model(
    protocol: WorkerProtocol, images: Images, profile: SandboxProfile
) -> None:
    # Given a model that writes wherever the engine put a file
    files = " ".join(ENGINES_FILES)
    script = f"for f in {files}; do echo left-behind >> $f; done; cat {files}; touch /output/x"
    image = images.script(script)
    # When it runs in either profile, and a model of the compatible profile, which may read all, after it
    ended(protocol.submit(image, profile=profile))
    after = images.script(f"cat {files}; touch /output/x")
    logs = [ended(protocol.submit(after, profile=each)).log for each in SandboxProfile]
    # Then nothing of it is found
    assert [log for log in logs if b"left-behind" in log] == []


@pytest.mark.usefixtures("worker")
def test_the_engines_files_are_read_only_with_a_read_only_root(
    protocol: WorkerProtocol, images: Images
) -> None:
    task = ended(protocol.submit(images.script("cat /proc/mounts; touch /output/x")))
    mounts = {line.split()[1]: line.split()[3].split(",")[0] for line in task.log.decode().splitlines()}
    assert {path: mounts[path] for path in ENGINES_FILES} == dict.fromkeys(ENGINES_FILES, "ro")


@pytest.mark.usefixtures("worker")
@BOTH
def test_a_volume_of_the_image_never_swallows_a_result(
    protocol: WorkerProtocol, images: Images, profile: SandboxProfile
) -> None:
    # Given an image whose volume is the output itself, in other words, and one whose volume lies inside it
    script = "mkdir -p /output/results; echo x > /output/results/x"
    same = images.script(script, "VOLUME /output/")
    inside = images.script(script, "VOLUME /output/results")
    # When they run
    kept = ended(protocol.submit(same, profile=profile))
    refused = ended(protocol.submit(inside, profile=profile))
    # Then the result comes back, or its owner is told why it cannot
    assert kept.output_files() == {"results/": b"", "results/x": b"x\n"}
    assert refused.reason_code == "image_invalid"
    assert refused.failure is not None
    assert "VOLUME /output/results" in refused.failure["reason"]


@pytest.mark.usefixtures("worker")
@BOTH
def test_a_volume_of_the_image_has_a_size(
    protocol: WorkerProtocol, images: Images, profile: SandboxProfile
) -> None:
    image = images.script("dd if=/dev/zero of=/data/x bs=1M count=8", "VOLUME /data")
    task = ended(protocol.submit(image, profile=profile, limits={"tmp_bytes": 2 * MIB}))
    assert task.reason_code == "exit_nonzero"
    assert b"No space left" in task.log


@pytest.mark.usefixtures("worker")
@BOTH
def test_the_nodes_control_groups_are_not_shown(
    protocol: WorkerProtocol, images: Images, profile: SandboxProfile
) -> None:
    task = ended(protocol.submit(images.script("cat /proc/self/cgroup; touch /output/x"), profile=profile))
    assert {line.split(":")[2] for line in task.log.decode().splitlines()} == {"/"}


def test_models_with_a_network_have_one_of_their_own(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine, station: Station, worker: SlotWorker
) -> None:
    # Given a model that may use a network
    relaxed = Sandbox(profile=SandboxProfile.STRICT, network=True, tmp_exec=False)
    image = images.script("ls /sys/class/net; touch /output/x; sleep 60")
    task = protocol.submit(image, sandbox=relaxed)
    wait_until(lambda: b"eth0" in task.log, what="it sees a network")
    # Then that is not the engine's own bridge, and nobody on it sees another
    wanted = {"label": f"{labels.INSTALLATION}={station.owner.installation}"}
    [network] = engine._api.networks(filters=wanted)
    assert network["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    [joined] = engine._api.inspect_network(network["Id"])["Containers"]
    [model] = engine.list_containers({labels.TASK: task.lease.task_id})
    assert joined == model.name
    # And it goes with the slot
    worker.drain()
    wait_until(lambda: engine._api.networks(filters=wanted) == [], 40, "the network is gone")
