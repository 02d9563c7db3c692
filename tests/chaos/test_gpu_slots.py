"""Several GPUs, simulated: found, each given to one container at a time, never to a CPU task, always freed.

The engine is one of our own whose default runtime gives devices to every container that asks for some.
"""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import requests

from tests.models.images import image_of
from tests.rig.api import Api, Task
from tests.rig.engine import OwnEngine
from tests.rig.gpus import DEVICES, StandInGpus
from tests.rig.polling import eventually
from tests.rig.server import Server

INSTALLATION, ROLE = "org.inferenceserver.installation", "org.inferenceserver.role"
MODELS = ("tells-its-gpu", "exits-3", "sleeps-for-ever", "eats-memory", "slow-echo")
# An image that asks for all there is, in both ways in which it may be heard.
GREEDY = "greedy:1"
# How long each of several tasks holds its GPU, until all of them do at once.
HOLD_SECONDS = (1, 5, 20)


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> StandInGpus:
    return StandInGpus(tmp_path_factory.mktemp("gpus"))


@pytest.fixture(scope="module")
def engine(gpus: StandInGpus) -> Iterator[OwnEngine]:
    if os.geteuid() != 0:
        pytest.skip("only root may start an engine")
    engine = OwnEngine(gpus.flags, programs=gpus.programs)
    try:
        engine.start()
        for model in MODELS:
            engine.load(image_of(model))
        bring_greedy(engine)
        yield engine
    finally:
        engine.close()
    assert engine.traces() == []


def bring_greedy(engine: OwnEngine) -> None:
    tag = image_of("tells-its-gpu")
    # Never started: it only lends its image another environment.
    lender = engine.client.containers.create(tag)
    changes = ["ENV NVIDIA_VISIBLE_DEVICES=all", "ENV DOCKER_RESOURCE_GPU=all"]
    lender.commit(*GREEDY.split(":"), changes="\n".join(changes))
    lender.remove()


@pytest.fixture(scope="module")
def server(engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The private API and a node that finds its GPUs itself."""
    settings = {
        "DOCKER_HOST": engine.host,
        "GPUS": "auto",
        "GPU_PROBE_IMAGE": image_of("tells-its-gpu"),
        "DRAIN_SECONDS": "1",
        "CLAIM_WAIT_SECONDS": "0.5",
    }
    server = Server(tmp_path_factory.mktemp("server"), slots=1, **settings)
    server.url = server.private_url
    server.private_api.start()
    eventually(lambda: is_ready(server), 30, "the private API is ready")
    server.consumer.start()
    yield server
    assert server.stop() == []
    assert containers_of(engine, server) == []


def is_ready(server: Server) -> bool:
    try:
        return requests.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture(scope="module")
def model(server: Server) -> Callable[..., str]:
    registered: dict[Any, str] = {}

    def register(name: str, **settings: Any) -> str:
        wanted: dict[str, Any] = {"use_gpu": True, "profile": "strict"} | settings
        key = (name, *sorted(wanted.items()))
        if key not in registered:
            registered[key] = server.admin.register(name, **wanted)
        return registered[key]

    return register


@pytest.fixture(autouse=True)
def whole_again(server: Server, engine: OwnEngine, gpus: StandInGpus) -> Iterator[None]:
    """After each test, whatever it did: no device was ever given to two containers at once."""
    yield
    if not server.consumer.running:
        server.consumer.start()
    for title, text in [*server.description(), ("dockerd", engine.last_lines())]:
        print(f"===== {title}\n{text}")
    eventually(lambda: not containers_of(engine, server, role="model"), 30, "no model is left")
    assert shared_devices(engine, gpus) == []


def containers_of(engine: OwnEngine, server: Server, role: str = "") -> list[Any]:
    wanted = [f"{INSTALLATION}={server.installation}", *([f"{ROLE}={role}"] if role else [])]
    return list(engine.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True))


def lives(engine: OwnEngine) -> dict[str, tuple[int, int, str]]:
    """When each container began and ended (in the engine's nanoseconds), and its role.

    An engine remembers 256 events: more than any test here brings about.
    """
    found: dict[str, tuple[int, int, str]] = {}
    api: Any = engine.client
    # Told apart to the nanosecond, other than the SDK's types say: whole seconds would leave out the last.
    now = f"{time.time():.9f}"
    events = api.events(since=0, until=now, decode=True, filters={"type": "container"})
    for event in events:
        actor, when = event["Actor"], event["timeNano"]
        began, ended, role = found.get(actor["ID"], (0, 2**63, actor["Attributes"].get(ROLE, "")))
        if event["Action"] == "start":
            found[actor["ID"]] = (when, ended, role)
        if event["Action"] == "die":
            found[actor["ID"]] = (began, when, role)
    return found


def shared_devices(engine: OwnEngine, gpus: StandInGpus) -> list[str]:
    """What went wrong: a model with several devices, or a device with several models at once."""
    wrong: list[str] = []
    seen = lives(engine)
    by_device: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for handed in gpus.handed():
        began, ended, role = seen.get(handed.container_id, (0, 0, "forgotten"))
        if role != "model" or not began:
            # A container that found the GPUs, or one of an earlier test.
            continue
        if len(handed.devices) != 1 or handed.devices[0] not in DEVICES:
            wrong.append(f"{handed.container_id} got {handed.devices}")
        by_device[handed.devices[0]][handed.container_id] = (began, ended)
    for device, containers in by_device.items():
        spans = sorted(containers.values())
        wrong += [f"{device} had two models" for (_, end), (start, _) in pairwise(spans) if start < end]
    return wrong


def listed(output: dict[str, bytes]) -> list[str]:
    """The devices that nvidia-smi showed inside; a MIG device stands below the GPU that it is a part of."""
    lines = output["gpus"].decode().splitlines()
    return [device for device in DEVICES if any(device in line for line in lines)]


def variables(output: dict[str, bytes]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output["env"].decode().splitlines())


def hold_all(user: Api, model: Callable[..., str], tag: str = "") -> list[Task]:
    """A task on every GPU at the same time: none of them is held by anything that has ended."""
    tagged = {"container_tag": tag} if tag else {}
    for seconds in HOLD_SECONDS:
        holding = {"seconds.txt": b"%d" % seconds}
        tasks = [user.submit(model("tells-its-gpu", **tagged), holding) for _ in DEVICES]

        def decided(tasks: list[Task] = tasks) -> set[str] | None:
            states = {user.task(task["id"])["state"] for task in tasks}
            is_open = states != {"running"} and states <= {"queued", "starting", "running"}
            return None if is_open else states

        states = eventually(decided, 20, "every GPU runs a model, or the first has ended")
        ended = [user.ended(task) for task in tasks]
        if states == {"running"}:
            return ended
    raise AssertionError(f"never did {len(DEVICES)} GPUs run a model at the same time")


def test_every_gpu_is_found_and_the_prober_is_gone(
    server: Server, engine: OwnEngine, gpus: StandInGpus, user: Api, model: Callable[..., str]
) -> None:
    # Given a node that was told nothing of GPUs; when it works
    outputs = [user.output(task) for task in hold_all(user, model)]
    # Then each of its GPUs, and each part of one, ran one of the models
    assert sorted(device for output in outputs for device in listed(output)) == sorted(DEVICES)
    # And each was given what it saw, by the engine and in its environment
    for output in outputs:
        [device] = listed(output)
        assert variables(output)["NVIDIA_VISIBLE_DEVICES"] == device
        assert variables(output)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    # And the server knows what they are
    node = server.admin.get("/v1/nodes/node-1").json()
    assert [(gpu["uuid"], gpu["memory_bytes"]) for gpu in node["gpus"]] == [
        (DEVICES[0], 24 * 1024**3),
        (DEVICES[1], 24 * 1024**3),
        (DEVICES[2], 40 * 10**9),
        (DEVICES[3], 10 * 10**9),
    ]
    # And those who found them had all, and are gone
    probes = [handed for handed in gpus.handed() if handed.devices == ("all",)]
    assert probes
    assert {lives(engine)[probe.container_id][2] for probe in probes} == {"probe"}
    assert containers_of(engine, server, role="probe") == []


def test_more_tasks_than_gpus_wait_for_each_other(user: Api, model: Callable[..., str]) -> None:
    tasks = [user.submit(model("tells-its-gpu")) for _ in range(3 * len(DEVICES))]
    for task in tasks:
        assert len(listed(user.output(user.ended(task)))) == 1


@pytest.mark.parametrize("tag", ["", GREEDY], ids=["modest", "greedy"])
def test_a_cpu_task_never_gets_one(user: Api, model: Callable[..., str], gpus: StandInGpus, tag: str) -> None:
    before = len(gpus.handed())
    tagged = {"container_tag": tag} if tag else {}
    output = user.output(user.run(model("tells-its-gpu", use_gpu=False, **tagged)))
    assert b"not found" in output["gpus"]
    assert set(variables(output).values()) == {"void"}
    assert len(gpus.handed()) == before


def test_a_greedy_image_gets_the_one_gpu_of_its_slot(user: Api, model: Callable[..., str]) -> None:
    outputs = [user.output(task) for task in hold_all(user, model, GREEDY)]
    assert sorted(device for output in outputs for device in listed(output)) == sorted(DEVICES)


class Ends:
    """Ways in which a task on a GPU may end."""

    def __init__(self, server: Server, engine: OwnEngine, user: Api, model: Callable[..., str]) -> None:
        self.server, self.engine, self.user, self.model = server, engine, user, model

    def success(self) -> Task:
        return self.user.run(self.model("tells-its-gpu"))

    def failure(self) -> Task:
        return self.user.run(self.model("exits-3"))

    def time_out(self) -> Task:
        return self.user.run(self.model("sleeps-for-ever", time_seconds=1))

    def cancel(self) -> Task:
        task = self.user.running(self.user.submit(self.model("sleeps-for-ever")))
        self.user.post(f"/v1/tasks/{task['id']}/cancel")
        return self.user.ended(task)

    def out_of_memory(self) -> Task:
        return self.user.run(self.model("eats-memory", memory_bytes=32 * 1024**2))

    def container_killed(self) -> Task:
        task = self.user.running(self.user.submit(self.model("slow-echo"), {"steps.txt": b"25"}))
        self.container(task).kill(signal.SIGKILL)
        # It is nobody's fault but the machine's: the task runs again.
        return self.user.ended(task)

    def consumer_killed(self) -> Task:
        task = self.user.running(self.user.submit(self.model("slow-echo"), {"steps.txt": b"10"}))
        self.server.consumer.kill()
        self.server.consumer.start()
        return self.user.ended(task)

    def container(self, task: Task) -> Any:
        wanted = [f"org.inferenceserver.task={task['id']}", f"{ROLE}=model"]

        def look() -> Any:
            return self.engine.client.containers.list(filters={"label": wanted}, ignore_removed=True)

        return eventually(look, 10, "its container runs")[0]


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (Ends.success, ("succeeded", None, 1)),
        (Ends.failure, ("failed", "exit_nonzero", 1)),
        (Ends.time_out, ("failed", "timed_out", 1)),
        (Ends.cancel, ("canceled", "canceled_by_user", 1)),
        (Ends.out_of_memory, ("failed", "out_of_memory", 1)),
        (Ends.container_killed, ("succeeded", None, 2)),
        (Ends.consumer_killed, ("succeeded", None, 1)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_gpu_is_free_after_every_kind_of_end(
    server: Server,
    engine: OwnEngine,
    user: Api,
    model: Callable[..., str],
    end: Callable[[Ends], Task],
    outcome: tuple[str, str | None, int],
) -> None:
    # Given a task on a GPU that ended so
    task = end(Ends(server, engine, user, model))
    assert (task["state"], task["reason_code"], task["attempt"]) == outcome, task
    # Then every GPU can be had at once
    hold_all(user, model)
