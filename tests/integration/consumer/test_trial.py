"""Tiny models, well-behaved and misbehaving, tried as their authors would: what is seen, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consumer.outside import labels
from consumer.outside.inspecting_engine import InspectingEngine
from consumer.trial.findings import judge
from consumer.trial.run import Plan, Run, try_model
from contracts.messages import Limits, MountPoints, SandboxProfile
from contracts.reasons import ReasonCode
from private_api.http.shapes import DEFAULT_LIMITS
from tests.integration.consumer.worker_protocol import zip_of
from tests.models.images import image_of

MIB = 1024**2


@pytest.fixture(scope="module")
def inspecting() -> InspectingEngine:
    return InspectingEngine()


class Trials:
    """Tries models by name, one sandbox at a time."""

    def __init__(self, engine: InspectingEngine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self.log = b""

    def plan(self, name: str) -> Plan:
        image = self.engine.describe_image(image_of(name))
        assert image is not None
        sample = self.directory / "input.zip"
        sample.write_bytes(zip_of({"hello.txt": b"hello"}))
        limits = replace(Limits(**DEFAULT_LIMITS), memory_bytes=64 * MIB, time_seconds=20.0)
        mounts = MountPoints(input="/input", output="/output", model="/model")
        return Plan(tag=image_of(name), image=image, limits=limits, mounts=mounts, input_zip=sample)

    def run(self, plan: Plan, profile: SandboxProfile) -> Run:
        directory = self.directory / profile.value
        directory.mkdir()
        return try_model(self.engine, plan, profile, directory, self._show)

    def both(self, name: str) -> tuple[Run, Run, str]:
        """Both runs, and all that is said about them."""
        plan = self.plan(name)
        strict = self.run(plan, SandboxProfile.STRICT)
        compatible = self.run(plan, SandboxProfile.COMPATIBLE)
        said = "\n".join(finding.text for finding in judge(plan, strict, compatible).findings)
        return strict, compatible, said

    def _show(self, piece: bytes) -> None:
        self.log += piece


@pytest.fixture
def trials(inspecting: InspectingEngine, tmp_path: Path) -> Trials:
    return Trials(inspecting, tmp_path)


def test_a_good_models_output_and_log_stay_and_nothing_else(trials: Trials) -> None:
    # Given a model that copies its input and tells how far it is
    plan = trials.plan("slow-echo")
    plan.input_zip.write_bytes(zip_of({"steps.txt": b"4"}))
    # When it is tried
    run = trials.run(plan, SandboxProfile.STRICT)
    # Then all that production would have kept is in the folder, and nothing is left elsewhere
    assert run.succeeded
    assert run.files == {"steps.txt": 1}
    assert (trials.directory / "strict" / "output" / "steps.txt").read_bytes() == b"4"
    assert run.log == trials.log.decode() == "".join(f"step {i} of 4\n" for i in range(1, 5))
    assert run.progress.valid == 4
    assert run.seconds >= 0.8
    assert run.peak_memory_bytes is not None
    assert 0 < run.peak_memory_bytes < 64 * MIB
    assert sorted(path.name for path in (trials.directory / "strict").iterdir()) == ["log.txt", "output"]
    on_engine = trials.engine.list_containers({labels.NODE: "model-test"})
    assert [item for item in on_engine if item.labels[labels.INSTALLATION].startswith("model-test-")] == []


def test_static_content_is_mounted(trials: Trials) -> None:
    content = trials.directory / "content.zip"
    content.write_bytes(zip_of({"weights": b"w"}))
    plan = replace(trials.plan("uses-model"), content_zip=content)
    run = trials.run(plan, SandboxProfile.STRICT)
    assert run.files == {"weights": 1}
    assert trials.engine.list_volumes({labels.NODE: "model-test"}) == []


def test_a_model_that_writes_beside_its_output(trials: Trials) -> None:
    strict, compatible, said = trials.both("writes-root")
    assert strict.code is ReasonCode.EXIT_NONZERO
    assert compatible.succeeded
    assert compatible.changed_paths == ("/evil",)
    assert "which the strict profile refuses: /evil." in said


def test_a_model_that_needs_root(trials: Trials) -> None:
    strict, compatible, said = trials.both("needs-root")
    assert (strict.succeeded, compatible.succeeded) == (False, True)
    assert compatible.changed_paths == ()
    assert "It needs its own user (root)" in said


def test_a_model_that_calls_for_a_network_is_seen_however_short_it_runs(trials: Trials) -> None:
    strict, _, said = trials.both("tries-network")
    assert strict.network is not None
    assert strict.network.no_route == 1
    assert "It tried to reach a network (once)" in said


def test_a_quiet_model_calls_for_none(trials: Trials) -> None:
    strict, _, said = trials.both("echo")
    assert strict.network is not None
    assert strict.network.no_route == strict.network.unheard == 0
    assert "network" not in said


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("writes-nothing", ReasonCode.NO_OUTPUT, "wrote nothing to /output"),
        ("eats-memory", ReasonCode.OUT_OF_MEMORY, "MEMORY="),
        ("exits-3", ReasonCode.EXIT_NONZERO, "exit code 3: the weights do not fit"),
        ("no-program", ReasonCode.IMAGE_INVALID, "ENTRYPOINT and CMD"),
    ],
)
def test_models_that_fail_in_both_profiles(trials: Trials, name: str, code: ReasonCode, words: str) -> None:
    strict, compatible, said = trials.both(name)
    assert strict.code is compatible.code is code
    assert words in said


def test_a_model_past_its_time(trials: Trials) -> None:
    plan = trials.plan("sleeps-for-ever")
    plan = replace(plan, limits=replace(plan.limits, time_seconds=1.0))
    run = trials.run(plan, SandboxProfile.STRICT)
    assert run.code is ReasonCode.TIMED_OUT
    assert run.log == "sleeping\n"


def test_what_is_no_file_is_named(trials: Trials) -> None:
    strict, _, said = trials.both("links-out")
    assert strict.files == {"kept": 2}
    assert '"passwd" is a link and was left out' in said
