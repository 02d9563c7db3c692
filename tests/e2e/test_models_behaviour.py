"""Every tiny model, behaving or not: how its task ends, what its owner is told, what stays behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.rig import remains
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.registry import Registry
from tests.rig.server import Server

MIB = 1024**2


@dataclass(frozen=True)
class Ending:
    """How a task of a model ends, under which settings, and words that its reason must contain."""

    model: str
    state: str = "succeeded"
    reason_code: str | None = None
    words: str = ""
    exit_code: int | None = 0
    settings: dict[str, Any] = field(default_factory=dict)
    output: dict[str, bytes] | None = None


def failed(model: str, reason_code: str, words: str, exit_code: int | None = None, **settings: Any) -> Ending:
    return Ending(model, "failed", reason_code, words, exit_code, settings)


SHORT = 1.5
ENDINGS = [
    Ending("echo", output={"in.txt": b"in"}),
    failed("exits-3", "exit_nonzero", "exit code 3: the weights do not fit", 3),
    failed("writes-nothing", "no_output", "allow_empty_output", 0),
    Ending("only-directories", output={"a/": b"", "a/b/": b"", "c/": b""}),
    failed("sleeps-for-ever", "timed_out", "1.5 s", time_seconds=SHORT),
    failed("ignores-sigterm", "timed_out", "1.5 s", time_seconds=SHORT),
    failed("hangs-after-writing", "timed_out", "1.5 s", time_seconds=SHORT),
    failed("eats-memory", "out_of_memory", "memory limit of 64 MiB", memory_bytes=64 * MIB),
    failed("child-eats-memory", "out_of_memory", "memory limit of 64 MiB", memory_bytes=64 * MIB),
    failed("fork-bomb", "exit_nonzero", "can't fork", 2, pids=20),
    failed("floods-output", "output_too_large", "limit", output_bytes=20 * MIB, tmp_bytes=20 * MIB),
    failed("floods-output-slowly", "output_too_large", "", output_bytes=20 * MIB),
    failed("floods-files", "output_too_large", "", output_files=2000),
    failed("sparse-terabyte", "output_too_large", "limit"),
    Ending("links-out", output={"kept": b"x\n"}),
    Ending("makes-fifo", output={"kept": b"x\n"}),
    Ending("names-not-utf8", output={"bad%FFname": b"x\n"}),
    Ending("floods-log", settings={"log_bytes": 10_000}, output={"x": b"x\n"}),
    failed("writes-root", "exit_nonzero", "compatible", 1),
    Ending("writes-root", settings={"profile": "compatible"}, output={"evil": b"x\n"}),
    Ending("writes-tmp", output={"x": b"x\n"}),
    failed("runs-from-tmp", "exit_nonzero", "", 126),
    Ending("runs-from-tmp", settings={"tmp_exec": True}, output={"x": b""}),
    Ending("writes-input", output={"x": b"kept\n"}),
    failed("needs-root", "exit_nonzero", "compatible", 1),
    Ending("needs-root", settings={"profile": "compatible"}, output={"x": b"x\n"}),
    failed("no-program", "image_invalid", "ENTRYPOINT", 127),
    Ending("writes-nothing", settings={"allow_empty_output": True}, output={}),
]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda e: " ".join([e.model, *map(str, e.settings)]))
def test_ending(server: Server, admin: Api, user: Api, ending: Ending) -> None:
    # Given
    model = admin.register(ending.model, **ending.settings)
    # When
    task = user.run(model)
    # Then its owner knows what happened and what to do
    told = (task["state"], task["reason_code"], task["attempt"])
    assert told == (ending.state, ending.reason_code, 1), task["reason"]
    if ending.state == "succeeded":
        assert (task["reason"], task["exit_code"]) == (None, 0)
        if ending.output is not None:
            assert user.output(task) == ending.output
    else:
        assert ending.words in task["reason"]
        assert task["reason"].strip().endswith((".", "fork", "fit")) or ":" in task["reason"]
        if ending.exit_code is not None:
            assert task["exit_code"] == ending.exit_code
    # And nothing of it is left on the node
    eventually(
        lambda: not remains.model_containers(server.installation, task["id"]), 10, "the container is gone"
    )


def test_what_was_left_out_is_told_in_the_log(user: Api, model: Callable[[str], str]) -> None:
    # When
    task = user.run(model("links-out"))
    # Then
    log = user.log(task).decode()
    for name in ("passwd", "root", "up"):
        assert f'"{name}" is a link and was left out of the output.' in log


def test_last_progress_is_kept_however_short_the_model_ran(user: Api, model: Callable[[str], str]) -> None:
    # When
    task = user.run(model("slow-echo"), {"steps.txt": b"2"})
    # Then
    assert task["state"] == "succeeded", task
    assert task["progress"] == {"fraction": 1.0, "message": "step 2"}


def test_thousand_levels_come_back(user: Api, model: Callable[[str], str]) -> None:
    # When
    task = user.run(model("deep-directories"))
    # Then
    assert task["state"] == "succeeded", task
    assert user.output(task)["d/" * 1000 + "end"] == b"deep\n"


def test_child_that_outlives_its_model_is_not_heard_of_again(
    server: Server, user: Api, model: Callable[[str], str]
) -> None:
    # When
    task = user.run(model("leaves-a-child"))
    # Then
    assert task["state"] == "succeeded", task
    assert user.output(task)["done"] == b"done\n"
    eventually(lambda: not remains.model_containers(server.installation, task["id"]), 10, "container gone")


def test_sandbox_as_the_model_sees_it(user: Api, admin: Api) -> None:
    # Given
    model = admin.register("tells-about-itself", content={"weights.bin": b"w" * 10}, shm_bytes=8 * MIB)
    # When
    task = user.run(model)
    seen = {name: text.decode() for name, text in user.output(task).items()}
    # Then it is nobody, in a place of its own, with what the contract names
    environment = dict(line.split("=", 1) for line in seen["env"].splitlines())
    paths = {"INPUT": "/input", "OUTPUT": "/output", "MODEL": "/model", "TASK_ID": task["id"]}
    assert environment.items() >= paths.items()
    assert (environment["HOME"], environment["TMPDIR"]) == ("/tmp", "/tmp")
    assert not {"DOCKER_HOST", "PRIVATE_API_URL", "WORKER_KEY_FILE"} & environment.keys()
    assert seen["id"].startswith("uid=65532 gid=65532")
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    assert set(status["CapEff"] + status["CapBnd"]) == {"0"}
    assert status["NoNewPrivs"] == "1"
    mounts = {line.split()[1]: line.split()[3].split(",") for line in seen["mounts"].splitlines()}
    assert {path: mounts[path][0] for path in ("/", "/input", "/model", "/output", "/tmp")} == {
        "/": "ro", "/input": "ro", "/model": "ro", "/output": "rw", "/tmp": "rw",
    }  # fmt: skip
    assert {"nosuid", "nodev", "noexec"} <= set(mounts["/tmp"])
    assert "weights.bin" in seen["files"]
    assert not [path for path in mounts if "docker.sock" in path]


def test_no_network_but_the_loopback(user: Api, model: Callable[[str], str]) -> None:
    # When
    output = user.output(user.run(model("tries-network")))
    # Then
    assert b"Network is unreachable" in output["answer"]
    assert {line.split()[1] for line in output["addresses"].decode().splitlines()} <= {"lo"}
    assert output["routes"].decode().splitlines()[1:] == []


def test_network_where_an_admin_allows_it(user: Api, admin: Api) -> None:
    # When
    output = user.output(user.run(admin.register("tries-network", network=True)))
    # Then
    assert b"eth0" in output["addresses"]
    assert b"Network is unreachable" not in output["answer"]


def test_image_that_no_registry_has(user: Api, admin: Api, registry: Registry) -> None:
    # Given
    model = admin.register("echo", container_tag=f"{registry.address}/nobody/nothing:1")
    # When
    task = user.run(model)
    # Then it is tried once, and the owner learns which image it was
    assert (task["state"], task["reason_code"], task["attempt"]) == ("failed", "image_unavailable", 1), task
    assert f"{registry.address}/nobody/nothing:1" in task["reason"]


def test_task_is_canceled_while_its_image_is_pulled(user: Api, admin: Api, registry: Registry) -> None:
    # Given a registry that takes its time
    model = admin.register("echo", container_tag=f"{registry.address}/slow/image:1")
    with registry.holding():
        task = user.submit(model)
        eventually(lambda: user.task(task["id"])["phase"] == "pulling", 15, "the image is being pulled")
        # When
        user.post(task["urls"]["cancel"])
        # Then it does not wait for the registry
        ended = user.ended(task, seconds=15)
    assert (ended["state"], ended["reason_code"]) == ("canceled", "canceled_by_user")
