"""The sandbox's create bodies, pinned by golden files: they are what holds strangers' programs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from consumer.attempt.sandbox import Place, container_body
from consumer.outside.engine import LocalImage
from consumer.outside.labels import Owner
from contracts.messages import Sandbox, SandboxProfile
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
    config = container_body(lease(sandbox=relaxed), IMAGE, PLACE)["HostConfig"]
    assert config["NetworkMode"] == "bridge"
    assert ",exec," in config["Tmpfs"]["/tmp"]


def test_a_consumer_that_is_not_root_runs_models_as_itself_in_both_profiles() -> None:
    for profile in SandboxProfile:
        body = container_body(lease(profile=profile), IMAGE, replace(PLACE, forced_user="1000:1000"))
        assert body["User"] == "1000:1000"


def test_a_cpu_model_gets_no_gpu_even_on_a_gpu_slot() -> None:
    assert "DeviceRequests" not in container_body(lease(), IMAGE, replace(PLACE, gpu=GPU))["HostConfig"]


def test_a_runtime_is_passed_on() -> None:
    assert container_body(lease(), IMAGE, replace(PLACE, runtime="runsc"))["HostConfig"]["Runtime"] == "runsc"
