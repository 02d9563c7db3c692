"""The sandbox's create bodies, pinned by golden files: they are what holds strangers' programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer.attempt.sandbox import Place, container_body, volume_fault
from consumer.outside.engine import LocalImage
from consumer.outside.labels import Owner
from contracts.messages import BlobFacts, MountPoints, Sandbox, SandboxProfile
from tests.unit.consumer.consumer_leases import lease

GOLDEN = Path(__file__).parent / "golden"
IMAGE = LocalImage(image_id="sha256:" + "a" * 64, volumes=("/data", "/input"))
PLACE = Place(
    owner=Owner(installation="inst", node="node", slot="cpu-0"),
    workspace="0123456789abcdef",
    input_volume="in",
    output_volume="out",
    progress_volume="progress",
    model_volume="model",
    holder="holder",
    open_files=16384,
)
GPU = "GPU-11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("strict", container_body(lease(), IMAGE, PLACE)),
        ("compatible", container_body(lease(profile=SandboxProfile.COMPATIBLE), IMAGE, PLACE)),
        ("gpu", container_body(lease(use_gpu=True), IMAGE, replace(PLACE, gpu=GPU, model_volume=None))),
    ],
)
def test_the_body_is_the_golden_one(name: str, body: dict[str, object]) -> None:
    assert body == json.loads((GOLDEN / f"{name}.json").read_text())


def test_an_admin_may_relax_network_and_execution_in_tmp() -> None:
    relaxed = Sandbox(profile=SandboxProfile.STRICT, network=True, tmp_exec=True)
    place = replace(PLACE, network="a network of ours")
    config = container_body(lease(sandbox=relaxed), IMAGE, place)["HostConfig"]
    assert config["NetworkMode"] == "a network of ours"
    assert ",exec," in config["Tmpfs"]["/tmp"]


def test_a_consumer_that_is_not_root_runs_models_as_itself_in_both_profiles() -> None:
    for profile in SandboxProfile:
        body = container_body(lease(profile=profile), IMAGE, replace(PLACE, forced_user="1000:1000"))
        assert body["User"] == "1000:1000"


def test_a_cpu_model_gets_no_gpu_even_on_a_gpu_slot() -> None:
    assert "DeviceRequests" not in container_body(lease(), IMAGE, replace(PLACE, gpu=GPU))["HostConfig"]


def variables(body: dict[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in body["Env"])


# Of an image that asks NVIDIA's runtime for all devices, in every way that it may listen to.
GREEDY = LocalImage(
    image_id="sha256:1",
    variables=("PATH", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "DOCKER_RESOURCE_GPU"),
)


def test_no_image_gets_a_gpu_by_its_own_environment() -> None:
    given = variables(container_body(lease(), GREEDY, replace(PLACE, gpu=GPU)))
    assert given["NVIDIA_VISIBLE_DEVICES"] == given["DOCKER_RESOURCE_GPU"] == "void"
    assert "PATH" not in given


def test_no_image_gets_more_than_its_slots_gpu_by_its_own_environment() -> None:
    given = variables(container_body(lease(use_gpu=True), GREEDY, replace(PLACE, gpu=GPU)))
    assert given["NVIDIA_VISIBLE_DEVICES"] == given["DOCKER_RESOURCE_GPU"] == GPU
    assert given["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_a_runtime_is_passed_on() -> None:
    assert container_body(lease(), IMAGE, replace(PLACE, runtime="runsc"))["HostConfig"]["Runtime"] == "runsc"


def test_only_a_read_only_root_joins_the_slots_network_namespace() -> None:
    # The namespace's owner shares its /etc/hosts: a writable root would let tasks write into each other's.
    modes = {
        profile: container_body(lease(profile=profile), IMAGE, PLACE)["HostConfig"]["NetworkMode"]
        for profile in SandboxProfile
    }
    assert modes == {SandboxProfile.STRICT: "container:holder", SandboxProfile.COMPATIBLE: "none"}


@pytest.mark.parametrize("profile", list(SandboxProfile))
def test_an_images_volumes_are_bounded_and_never_cover_our_mounts(profile: SandboxProfile) -> None:
    # Given an image with volumes of its own and two that are our mounts in other words
    image = LocalImage(image_id="sha256:1", volumes=("/data/", "/output/", "//input", "/tmp", "/a/../b"))
    # When its container is made
    body = container_body(lease(profile=profile), image, PLACE)
    # Then the others lie in memory, within a limit
    tmpfs = body["HostConfig"]["Tmpfs"]
    assert set(tmpfs) == {"/tmp", "/data", "/b"}
    assert all("size=134217728" in options for options in tmpfs.values())


def test_a_model_directory_that_nothing_is_mounted_at_is_bounded_too() -> None:
    image = LocalImage(image_id="sha256:1", volumes=("/model",))
    body = container_body(lease(), image, replace(PLACE, model_volume=None))
    assert "/model" in body["HostConfig"]["Tmpfs"]


CONTENT = BlobFacts(size_bytes=1, sha256="0" * 64)


@pytest.mark.parametrize(
    ("volume", "at_fault"),
    [
        ("/output/results", True),
        ("/output//results/", True),
        ("/input/cache", True),
        ("/model/cache", True),
        ("/run/inferenceserver/x", True),
        ("/", True),
        ("//", True),
        ("/output", False),
        ("/output/", False),
        ("/outputs", False),
        ("/run", False),
        ("/data", False),
    ],
)
def test_a_volume_that_would_hide_our_mounts_is_the_images_fault(volume: str, at_fault: bool) -> None:
    sentence = volume_fault(lease(content=CONTENT), LocalImage(image_id="sha256:1", volumes=(volume,)))
    assert (sentence is not None) == at_fault
    assert sentence is None or f"VOLUME {volume}" in sentence


def test_a_volume_below_a_mount_that_is_not_there_is_nobodys_fault() -> None:
    image = LocalImage(image_id="sha256:1", volumes=("/model/cache", "/output/x"))
    mounts = MountPoints(input="/in", output="/out/", model="/model")
    assert volume_fault(lease(mounts=mounts), image) is None
    below = LocalImage(image_id="sha256:1", volumes=("/out/x",))
    assert volume_fault(lease(mounts=mounts), below) is not None


@pytest.mark.parametrize("log_bytes", [1024, 10 * 1024**2, 14 * 1024**2])
def test_no_log_is_thrown_away_before_it_is_full_however_short_its_lines(log_bytes: int) -> None:
    # Given the most that the engine writes for one byte of log
    line = '{"log":"\\n","stream":"stderr","time":"2026-11-21T08:53:58.123456789Z"}\n'
    limits = replace(lease().limits, log_bytes=log_bytes)
    options = container_body(lease(limits=limits), IMAGE, PLACE)["HostConfig"]["LogConfig"]["Config"]
    assert int(options["max-size"]) * int(options["max-file"]) >= len(line) * log_bytes


def test_log_files_stay_bounded_but_hold_the_log() -> None:
    limits = replace(lease().limits, log_bytes=1024**3)
    options = container_body(lease(limits=limits), IMAGE, PLACE)["HostConfig"]["LogConfig"]["Config"]
    assert int(options["max-size"]) * int(options["max-file"]) == 3 * 1024**3


def test_the_container_carries_the_request_that_sent_its_task() -> None:
    labels = container_body(lease(request_id="edge-0123456789"), IMAGE, PLACE)["Labels"]
    assert labels["org.inferenceserver.request"] == "edge-0123456789"
    # A task of an earlier release has none, and then neither has its container.
    assert "org.inferenceserver.request" not in container_body(lease(), IMAGE, PLACE)["Labels"]
