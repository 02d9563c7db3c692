"""What a trial tells a model's author, finding by finding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from consumer.outside.inspecting_engine import ImageDetails, Layer
from consumer.trial.findings import Judgement, judge, refused_paths, size
from consumer.trial.run import Plan, ProgressLines, Run, progress_lines
from consumer.trial.senses import NetworkCalls, memory_group, parse_counters
from contracts.messages import Limits, MountPoints, SandboxProfile
from contracts.reasons import ReasonCode

IMAGE = ImageDetails(
    image_id="sha256:1",
    size_bytes=200 * 1024**2,
    user="1000",
    program=("python", "predict.py"),
    volumes=(),
    has_health_check=False,
    layers=(Layer(size_bytes=1, made_by="RUN x"),),
)
PLAN = Plan(
    tag="model:1",
    image=IMAGE,
    limits=Limits(
        time_seconds=60, memory_bytes=1000, cpus=1, pids=64, output_bytes=1000, output_files=10,
        log_bytes=1000, shm_bytes=1000, tmp_bytes=1000,
    ),
    mounts=MountPoints(input="/input", output="/output", model="/model"),
    input_zip=Path("in.zip"),
)  # fmt: skip
STRICT = Run(
    profile=SandboxProfile.STRICT,
    code=None,
    sentence="",
    exit_code=0,
    seconds=1.0,
    progress=ProgressLines(valid=1),
    network=NetworkCalls(no_route=0, unheard=0),
)
COMPATIBLE = replace(STRICT, profile=SandboxProfile.COMPATIBLE)
FAILED: dict[str, Any] = {
    "code": ReasonCode.EXIT_NONZERO,
    "sentence": "The model ended with exit code 1",
    "exit_code": 1,
}


def problems(judgement: Judgement) -> str:
    return "\n".join(finding.text for finding in judgement.findings if finding.problem)


def notes(judgement: Judgement) -> str:
    return "\n".join(finding.text for finding in judgement.findings if not finding.problem)


def test_a_model_that_works_in_both_profiles_is_for_strict_and_nothing_is_said() -> None:
    judgement = judge(PLAN, STRICT, COMPATIBLE)
    assert judgement.profile is SandboxProfile.STRICT
    assert judgement.findings == ()


def test_writing_beside_the_output_names_the_paths_of_either_run() -> None:
    strict = replace(STRICT, **FAILED, log="OSError: [Errno 30] Read-only file system: '/app/cache'\n")
    compatible = replace(COMPATIBLE, changed_paths=("/app/cache/index", "/var/lib/x"))
    judgement = judge(PLAN, strict, compatible)
    assert judgement.profile is SandboxProfile.COMPATIBLE
    assert "/app/cache, /app/cache/index, /var/lib/x" in problems(judgement)
    assert "In the strict profile: The model ended with exit code 1" in problems(judgement)


def test_writing_that_is_refused_and_does_no_harm_is_only_noted() -> None:
    strict = replace(STRICT, log="warning: Read-only file system: '/root/.cache'\n")
    judgement = judge(PLAN, strict, COMPATIBLE)
    assert judgement.profile is SandboxProfile.STRICT
    assert "/root/.cache, is refused, and works without" in notes(judgement)
    assert problems(judgement) == ""


def test_an_image_without_a_user_that_needs_none_hears_so() -> None:
    judgement = judge(replace(PLAN, image=replace(IMAGE, user="")), STRICT, COMPATIBLE)
    assert "does not need to" in notes(judgement)


def test_a_model_that_needs_root_hears_what_refused_it() -> None:
    plan = replace(PLAN, image=replace(IMAGE, user="root"))
    strict = replace(STRICT, **FAILED, log="open /app/weights: Permission denied\n")
    judgement = judge(plan, strict, COMPATIBLE)
    assert judgement.profile is SandboxProfile.COMPATIBLE
    assert "needs its own user (root)" in problems(judgement)
    assert "open /app/weights: Permission denied" in problems(judgement)


@pytest.mark.parametrize(
    ("calls", "log", "said"),
    [
        (NetworkCalls(no_route=1, unheard=0), "", "(once)"),
        (NetworkCalls(no_route=2, unheard=3), "", "(5 times)"),
        (None, "Temporary failure in name resolution\n", "(at least once)"),
    ],
)
def test_a_call_for_a_network_is_told_whether_counted_or_read(
    calls: NetworkCalls | None, log: str, said: str
) -> None:
    run = replace(STRICT, network=calls, log=log)
    assert said in notes(judge(PLAN, run, COMPATIBLE))
    failed = replace(run, **FAILED)
    assert said in problems(judge(PLAN, failed, COMPATIBLE)), "what keeps it from running is a problem"
    assert judge(replace(PLAN, network=True), run, COMPATIBLE).findings == ()
    went_on = replace(COMPATIBLE, network=calls, log=log)
    assert said in notes(judge(PLAN, failed, went_on)), "what one run could do without is none"


def test_the_same_failure_in_both_profiles_is_told_once() -> None:
    judgement = judge(PLAN, replace(STRICT, **FAILED), replace(COMPATIBLE, **FAILED))
    assert judgement.profile is None
    assert problems(judgement).count("exit code 1") == 1


def test_output_at_the_wrong_place_is_named() -> None:
    nothing: dict[str, Any] = {"code": ReasonCode.NO_OUTPUT, "sentence": "wrote nothing"}
    compatible = replace(COMPATIBLE, **nothing, changed_paths=("/results/mask.png",))
    judgement = judge(PLAN, replace(STRICT, **nothing), compatible)
    assert "It wrote to /results/mask.png instead" in problems(judgement)


def test_memory_near_the_limit_and_above_it() -> None:
    near = judge(PLAN, replace(STRICT, peak_memory_bytes=801), COMPATIBLE)
    assert "a larger input could pass the limit" in notes(near)
    assert judge(PLAN, replace(STRICT, peak_memory_bytes=800), COMPATIBLE).findings == ()
    above = replace(STRICT, **{**FAILED, "code": ReasonCode.OUT_OF_MEMORY})
    assert "MEMORY=" in notes(judge(PLAN, above, COMPATIBLE))


def test_progress_that_says_nothing_is_shown_and_silence_only_after_a_while() -> None:
    odd = replace(STRICT, progress=ProgressLines(invalid=2, first_invalid="50%"))
    assert "'50%'" in notes(judge(PLAN, odd, COMPATIBLE))
    silent = replace(STRICT, progress=ProgressLines())
    assert judge(PLAN, silent, COMPATIBLE).findings == ()
    assert "$PROGRESS" in notes(judge(PLAN, replace(silent, seconds=11.0), COMPATIBLE))


def test_what_the_image_declares_in_vain() -> None:
    image = replace(IMAGE, volumes=("/data",), has_health_check=True, program=(), size_bytes=9 * 1024**3)
    judgement = judge(replace(PLAN, image=image), STRICT, COMPATIBLE)
    assert "VOLUME /data" in notes(judgement)
    assert "HEALTHCHECK" in notes(judgement)
    assert "9 GiB" in notes(judgement)
    assert "ENTRYPOINT or a CMD" in problems(judgement)


def test_what_was_left_out_of_the_output_is_repeated_from_the_log() -> None:
    strict = replace(STRICT, log='done\n[inferenceserver] "link" is a link and was left out of the output.\n')
    assert notes(judge(PLAN, strict, COMPATIBLE)) == '"link" is a link and was left out of the output.'


def test_runs_as_somebody_else_are_no_proof() -> None:
    assert "your own user (501:20)" in notes(judge(PLAN, STRICT, COMPATIBLE, "501:20"))


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("OSError: [Errno 30] Read-only file system: '/app/cache'", ["/app/cache"]),
        ("/bin/sh: can't create /evil: Read-only file system", ["/evil"]),
        ("touch: cannot touch '/opt/x y': Read-only file system", ["/opt/x"]),
        ("mkdir: cannot create directory \u2018/data/out\u2019: Read-only file system", ["/data/out"]),
        ("Read-only file system", []),
        ("reading /input/a.dcm", []),
    ],
)
def test_refused_paths(line: str, paths: list[str]) -> None:
    assert refused_paths(line) == paths


def test_the_kernels_table_of_counters() -> None:
    table = "Ip: Forwarding OutNoRoutes\nIp: 1 7\nUdp: InDatagrams NoPorts\nUdp: 0 2\n"
    assert parse_counters(table) == NetworkCalls(no_route=7, unheard=2)
    assert parse_counters("") == NetworkCalls(no_route=0, unheard=0)


def test_progress_lines_are_judged_one_by_one() -> None:
    content = b'{"fraction": 0.5}\n\n50%\n{"fraction": 2}\n{"message": "x"}\n'
    assert progress_lines(content) == ProgressLines(valid=2, invalid=2, first_invalid="50%")


def test_sizes() -> None:
    assert [size(1), size(1536), size(190 * 1024**2), size(3 * 1024**3)] == [
        "1 bytes", "1.5 KiB", "190 MiB", "3 GiB",
    ]  # fmt: skip


def test_where_memory_is_counted_in_either_version_of_control_groups() -> None:
    first = "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/docker/abc\n"
    assert memory_group(first) == ("memory/docker/abc", "memory.usage_in_bytes", "total_inactive_file")
    second = "0::/system.slice/docker-abc.scope\n"
    assert memory_group(second) == ("system.slice/docker-abc.scope", "memory.current", "inactive_file")
