"""Well-behaved and misbehaving models on a real engine, each with the ending that its user is told."""

from __future__ import annotations

import pytest

from consumer.outside.docker_engine import DockerEngine
from consumer.outside.labels import TASK
from contracts.messages import PullPolicy, SandboxProfile
from tests.integration.consumer.model_images import Images
from tests.integration.consumer.worker_protocol import MIB, Task, WorkerProtocol, facts_of, wait_until

pytestmark = pytest.mark.usefixtures("worker")


def succeeded(task: Task) -> Task:
    assert task.ended.wait(90), f"no end; log: {bytes(task.log)!r}"
    assert task.failure is None, task.failure
    return task


def reason(task: Task, code: str) -> str:
    """The sentence of a task that has failed with ``code``."""
    assert task.ended.wait(90), f"no end; log: {bytes(task.log)!r}"
    assert task.failure is not None, "it succeeded"
    assert task.failure["reason_code"] == code, task.failure
    return str(task.failure["reason"])


def test_a_models_output_comes_back_with_its_directories(protocol: WorkerProtocol, images: Images) -> None:
    # Given a model that copies its input
    image = images.script("cat /input/a/b.txt; cp -r /input/* /output/")
    # When a task with a directory is sent
    task = succeeded(protocol.submit(image, {"a/b.txt": b"bee\n", "c.txt": b"sea"}))
    # Then the output holds the same, the log what was said, and the server knows which image ran
    assert task.output_files() == {"a/": b"", "a/b.txt": b"bee\n", "c.txt": b"sea"}
    assert bytes(task.log) == b"bee\n"
    assert task.completion is not None
    assert task.completion["exit_code"] == 0
    assert task.completion["output"] == facts_of(task.output or b"").to_json()
    assert task.beats[-1]["image"]["image_id"].startswith("sha256:")


def test_the_static_content_is_fetched_once_and_shown_read_only(
    protocol: WorkerProtocol, images: Images
) -> None:
    # Given a model that reads its content and tries to change it
    image = images.script("cp $MODEL/w.txt $OUTPUT/; touch $MODEL/x && echo written; true")
    # When two tasks with the same content run
    for _ in range(2):
        task = succeeded(protocol.submit(image, content={"w.txt": b"weights"}))
        # Then both see it and neither can write there
        assert task.output_files() == {"w.txt": b"weights"}
        assert b"written" not in task.log
    # And it travelled once
    assert protocol.content_requests == 1


def test_the_sandbox_refuses_what_it_should(protocol: WorkerProtocol, images: Images) -> None:
    # Given a model that tries everything and says what it could do
    image = images.script(
        "id -u; touch /x && echo root-written; touch /input/x && echo input-written;"
        "touch /tmp/x && echo tmp-written; ls /sys/class/net; wget -T 2 http://1.1.1.1/ && echo network;"
        "cp /bin/busybox /tmp/b && /tmp/b true && echo tmp-executed; touch /output/done"
    )
    # When it runs in the strict profile
    log = bytes(succeeded(protocol.submit(image)).log).decode()
    # Then only /tmp and /output were its own
    assert "65532" in log.splitlines()
    assert "tmp-written" in log
    assert [
        word for word in ("root-written", "input-written", "network\n", "tmp-executed") if word in log
    ] == []
    assert "eth0" not in log


def test_the_compatible_profile_keeps_user_and_root(protocol: WorkerProtocol, images: Images) -> None:
    # Given a model that writes into its root file system
    image = images.script("touch /x && id -u > /output/id")
    # When it runs in the compatible profile
    task = succeeded(protocol.submit(image, profile=SandboxProfile.COMPATIBLE))
    # Then it may, as the image's own user
    assert task.output_files() == {"id": b"0\n"}


def test_a_read_only_root_is_hinted_at(protocol: WorkerProtocol, images: Images) -> None:
    # Given a model that needs a writable root
    image = images.script("echo > /x")
    # When it runs in the strict profile
    sentence = reason(protocol.submit(image), "exit_nonzero")
    # Then the sentence quotes it and names the profile that would let it
    assert "Read-only file system" in sentence
    assert "compatible profile" in sentence


def test_an_exit_code_is_told_with_the_last_line(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script("echo first >&2; printf 'no \\033[31mlicence\\033[0m\\n\\n' >&2; exit 3")
    task = protocol.submit(image)
    assert reason(task, "exit_nonzero") == "The model ended with exit code 3: no licence"
    assert task.failure is not None
    assert task.failure["exit_code"] == 3
    assert b"first\n" in task.log


@pytest.mark.parametrize("script", ["tail /dev/zero", "sh -c 'tail /dev/zero'; touch /output/half; exit 0"])
def test_running_out_of_memory_is_told_even_when_a_child_did(
    protocol: WorkerProtocol, images: Images, script: str
) -> None:
    task = protocol.submit(images.script(script), limits={"memory_bytes": 16 * MIB})
    assert "16 MiB" in reason(task, "out_of_memory")


def test_a_model_that_ignores_sigterm_is_stopped_at_its_time_limit(
    protocol: WorkerProtocol, images: Images
) -> None:
    image = images.script("trap '' TERM; while true; do sleep 1; done")
    assert "1 s" in reason(protocol.submit(image, limits={"time_seconds": 1}), "timed_out")


def test_no_output_is_a_failure_unless_allowed(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script("true")
    assert "/output" in reason(protocol.submit(image), "no_output")
    assert succeeded(protocol.submit(image, allow_empty_output=True)).output_files() == {}


@pytest.mark.parametrize(
    "script",
    [
        "yes > /output/flood",
        "i=0; while true; do dd if=/dev/zero of=/output/$i bs=1M count=1 2>/dev/null; i=$((i+1)); done",
        # A sparse file above the limit, and one that not even the file size limit lets through.
        f"truncate -s {8 * MIB} /output/sparse; sleep 30",
        f"exec truncate -s {1024**4} /output/sparse",
        "i=0; while true; do echo > /output/$i; i=$((i+1)); done",
    ],
)
def test_too_much_output_is_stopped(protocol: WorkerProtocol, images: Images, script: str) -> None:
    task = protocol.submit(images.script(script), limits={"output_bytes": 4 * MIB, "output_files": 100})
    assert "limit" in reason(task, "output_too_large")


def test_a_log_flood_is_cut_at_its_limit_and_harms_nobody(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script(
        f"yes {'y' * 500} | dd bs=1M count=100 iflag=fullblock 2>/dev/null; touch /output/x"
    )
    task = succeeded(protocol.submit(image, limits={"log_bytes": 100_000}))
    assert len(task.log) == 100_000


def test_a_missing_image_says_both_ways_out(protocol: WorkerProtocol) -> None:
    sentence = reason(protocol.submit("nowhere.invalid/no/such:image"), "pull_failed")
    assert "nowhere.invalid/no/such:image" in sentence
    assert "docker build" in sentence
    assert "registry" in sentence


def test_an_invalid_reference_is_the_models_fault(protocol: WorkerProtocol) -> None:
    assert "Check the tag" in reason(protocol.submit("UPPER CASE"), "image_unavailable")


def test_always_pulling_asks_the_registry_even_for_a_local_image(
    protocol: WorkerProtocol, images: Images
) -> None:
    image = "localhost:1/" + images.script("true")
    assert image in reason(protocol.submit(image, pull_policy=PullPolicy.ALWAYS), "pull_failed")


def test_a_pinned_image_runs_although_its_tag_is_gone(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine
) -> None:
    local = engine.find_image(images.script("touch /output/x"))
    assert local is not None
    succeeded(protocol.submit("gone:latest", image_id=local.image_id))


def test_a_tag_that_means_another_image_now_is_told(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script("true")
    assert "another image" in reason(
        protocol.submit(image, image_id="sha256:" + "0" * 64), "image_unavailable"
    )


@pytest.mark.parametrize(
    "changes",
    [[], ['ENTRYPOINT ["/nowhere"]'], ['ENTRYPOINT ["/etc/note"]']],
    ids=["none", "missing", "not-executable"],
)
def test_an_image_that_cannot_run_is_told_apart(
    protocol: WorkerProtocol, images: Images, changes: list[str]
) -> None:
    assert "ENTRYPOINT" in reason(protocol.submit(images.entrypoint(*changes)), "image_invalid")


def test_a_fork_bomb_stays_in_its_bounds(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script("f() { f | f & }; f; sleep 1; touch /output/x; true")
    task = protocol.submit(image, limits={"pids": 32, "time_seconds": 5})
    assert task.ended.wait(90)
    assert task.reason_code in {"succeeded", "exit_nonzero", "timed_out"}
    # And the slot works on
    succeeded(protocol.submit(images.script("touch /output/x")))


@pytest.mark.parametrize("raw", [b"no zip at all", b""])
def test_a_bad_input_is_the_callers_fault(protocol: WorkerProtocol, images: Images, raw: bytes) -> None:
    reason(protocol.submit(images.script("true"), raw_input=raw), "input_invalid")


def test_a_cancel_while_running_ends_the_container_within_seconds(
    protocol: WorkerProtocol, images: Images, engine: DockerEngine
) -> None:
    # Given a running model that ignores SIGTERM
    task = protocol.submit(images.script("trap '' TERM; echo up; while true; do sleep 1; done"))
    wait_until(lambda: b"up" in task.log)
    # When it is canceled
    protocol.cancel(task)
    reason(task, "canceled_by_user")
    # Then it is really gone soon after
    wait_until(lambda: not engine.list_containers({TASK: task.lease.task_id}))


def test_progress_travels_with_the_heartbeat(protocol: WorkerProtocol, images: Images) -> None:
    script = """echo '{"fraction": 0.5, "message": "half"}' > $PROGRESS; sleep 6; touch /output/x"""
    task = protocol.submit(images.script(script))
    wait_until(lambda: task.beats and task.beats[-1]["progress"] == {"fraction": 0.5, "message": "half"})
    protocol.cancel(task)
    reason(task, "canceled_by_user")


def test_a_link_in_the_output_is_left_out_and_noted_in_the_log(
    protocol: WorkerProtocol, images: Images
) -> None:
    image = images.script("busybox ln -s /etc/passwd /output/link; echo x > /output/x")
    task = succeeded(protocol.submit(image))
    assert task.output_files() == {"x": b"x\n"}
    assert b'"link" is a link and was left out' in task.log


def test_very_deep_directories_are_removed_again(protocol: WorkerProtocol, images: Images) -> None:
    image = images.script(
        "cd /output; i=0; while [ $i -lt 3000 ]; do mkdir d; cd d; i=$((i+1)); done; exit 1"
    )
    assert protocol.submit(image, limits={"output_files": 100000}).ended.wait(90)
