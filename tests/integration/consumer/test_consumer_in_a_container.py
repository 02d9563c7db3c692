"""A consumer that is a container itself: what it gives its siblings, how it ends, and who takes over.

Each runs with a read-only root and two capabilities, against a private API on the gateway of the bridge.
"""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from docker.types import Mount

from tests.models.images import engine
from tests.rig import remains
from tests.rig.api import Api, Task
from tests.rig.consumer_container import DIRECTORY, ConsumerContainer, gateway
from tests.rig.polling import eventually
from tests.rig.server import Server

KEY = "/run/secrets/worker.key"
STEPS = {"steps.txt": b"30"}
LOG = b"".join(b"step %d of 30\n" % step for step in range(1, 31))

PRINT_NAMES = """
import os
from consumer.bootstrap import settled
from consumer.node.settings import Settings
from consumer.outside.docker_engine import DockerEngine
settings = Settings.from_environment(settled(os.environ, DockerEngine()))
print(settings.installation, settings.node)
"""

Checked = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The private API where containers reach it, and nothing else."""
    bridge = gateway()
    with socket.socket() as free:
        free.bind((bridge, 0))
        address = f"{bridge}:{free.getsockname()[1]}"
    state = tmp_path_factory.mktemp("server")
    server = Server(state, PRIVATE_API_BIND=address)
    # Callers speak to it as well: what stands before it elsewhere has no part in this.
    server.url = server.private_url = f"http://{address}"
    server.private_api.start()
    eventually(lambda: answers(f"{server.url}/readyz"), 30, "the private API is ready")
    yield server
    assert server.stop() == []


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture
def consumer(server: Server) -> Iterator[ConsumerContainer]:
    consumer = ConsumerContainer(
        {
            "PRIVATE_API_URL": server.private_url,
            "WORKER_KEY_FILE": KEY,
            "INSTALLATION": server.installation,
            "CPU_SLOTS": "1",
            "DRAIN_SECONDS": "1",
            "CLAIM_WAIT_SECONDS": "0.5",
        },
        [Mount(KEY, str(server.state / "worker.key"), type="bind", read_only=True)],
    )
    yield consumer
    if consumer.running:
        consumer.stop()
    print(consumer.logs())
    consumer.close()
    left = remains.all_but_contents(server.installation)
    remains.sweep(server.installation)
    assert left == []


def register(server: Server, tiny_model: str) -> str:
    return server.admin.register(tiny_model)


def container_of(server: Server, task: Task) -> str:
    (container,) = remains.model_containers(server.installation, task["id"])
    return str(container.id)


def test_a_sibling_sees_the_input_and_its_output_comes_back(
    server: Server, user: Api, consumer: ConsumerContainer
) -> None:
    # Given a consumer in a container
    consumer.start()
    # When a model with static content of its own runs, and one without
    content = {"weights.bin": b"w" * 5000}
    with_content = user.submit(server.admin.register("uses-model", content=content))
    plain = user.submit(register(server, "echo"), {"b.txt": b"x" * 100_000})
    # Then both saw what they were meant to see
    assert user.output(user.ended(with_content)) == content
    assert user.output(user.ended(plain)) == {"b.txt": b"x" * 100_000}
    # And what it gave them lay in its own volume
    place = engine().volumes.get(consumer.volume).attrs["Mountpoint"]
    devices = [volume.attrs["Options"]["device"] for volume in remains.volumes(server.installation)]
    assert devices
    assert all(device.startswith(f"{place}/") for device in devices)
    # And told to stop, it ends well and takes its holder along
    assert consumer.stop() == 0
    assert remains.all_but_contents(server.installation) == []


def test_a_new_container_adopts_what_the_old_one_ran(
    server: Server, user: Api, consumer: ConsumerContainer
) -> None:
    # Given a model in the middle of its work
    consumer.start()
    task = user.running(user.submit(register(server, "slow-echo"), STEPS))
    eventually(lambda: user.get(task["urls"]["logs"]).content, 10, "it has said something")
    running = container_of(server, task)
    # When its consumer is killed, and another container has its volume
    consumer.kill()
    consumer.remove()
    consumer.start()
    # Then the same container goes on under the same attempt, and not a line is missing
    eventually(lambda: "container_adopted" in consumer.logs(), 20, "it is adopted")
    assert container_of(server, task) == running
    ended = user.ended(task)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert user.output(ended) == STEPS
    assert user.log(ended) == LOG
    assert consumer.stop() == 0


def test_docker_stop_lets_a_task_end_that_ends_in_time(
    server: Server, user: Api, consumer: ConsumerContainer
) -> None:
    # Given a node with time enough, and a model that will soon be done
    consumer.environment["DRAIN_SECONDS"] = "20"
    consumer.start()
    task = user.running(user.submit(register(server, "slow-echo"), {"steps.txt": b"10"}))
    # When its consumer is replaced by another, as a rolling update does
    assert consumer.stop() == 0
    # Then the task has ended there, once and well
    ended = user.task(task["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended


def test_an_engine_without_gpus_is_a_node_without_gpus(server: Server, consumer: ConsumerContainer) -> None:
    # Given a consumer that is to find the GPUs itself, in a sibling of its own image
    consumer.environment["GPUS"] = "auto"
    consumer.start()
    # Then it begins without, and says so in one line
    eventually(lambda: '"slots": ["cpu-0"]' in consumer.logs(), 30, "it begins")
    about_gpus = [line for line in consumer.logs().splitlines() if "GPU" in line]
    assert len(about_gpus) == 1, about_gpus
    assert '"no_gpus"' in about_gpus[0]
    assert remains.containers(server.installation, role="probe") == []


def test_docker_stop_hands_the_task_back(server: Server, user: Api, consumer: ConsumerContainer) -> None:
    # Given a model that would never end
    consumer.start()
    task = user.running(user.submit(register(server, "sleeps-for-ever")))
    # When
    status = consumer.stop()
    # Then it was not killed, and the task waits for another worker without having lost anything
    assert status == 0, consumer.logs()
    assert user.task(task["id"])["state"] == "queued"
    assert remains.all_but_contents(server.installation) == []
    user.post(f"/v1/tasks/{task['id']}/cancel")


def test_what_models_leave_is_removed_whoever_may_read_it(
    server: Server, user: Api, consumer: ConsumerContainer
) -> None:
    # Given a model that shuts its result away: no permissions, another owner, a sticky directory
    consumer.start()
    # When it has run
    ended = user.ended(user.submit(register(server, "locks-its-output")))
    # Then the result came, and nothing of the attempt is on the disk
    assert user.output(ended)["kept/result"] == b"x\n"
    eventually(lambda: len(workspaces(consumer)) == 1, 20, "only the workspace of the idle slot is there")
    assert consumer.stop() == 0
    assert workspaces(consumer) == []


def test_what_a_model_writes_beside_its_output_is_limited_although_only_the_engine_sees_it(
    server: Server, user: Api, consumer: ConsumerContainer
) -> None:
    # Given a model that may write anywhere, on a node that allows a megabyte of that
    consumer.environment["WRITABLE_LAYER_BYTES"] = str(1024**2)
    consumer.start()
    model = server.admin.register("floods-root", profile="compatible")
    # Then it is stopped
    ended = user.ended(user.submit(model))
    assert (ended["state"], ended["reason_code"]) == ("failed", "output_too_large"), ended


def test_a_consumer_that_still_waits_for_its_engine_ends_when_told_to(consumer: ConsumerContainer) -> None:
    # Given a first process of a container, in which no signal has an effect by itself
    consumer.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
    consumer.start()
    eventually(lambda: "engine_awaited" in consumer.logs(), 20, "it says for what it waits")
    # Then
    assert consumer.stop() == 128 + signal.SIGTERM


def workspaces(consumer: ConsumerContainer) -> list[Path]:
    place = Path(engine().volumes.get(consumer.volume).attrs["Mountpoint"])
    return list(place.rglob("work/*"))


@pytest.fixture
def checked() -> Iterator[Checked]:
    """Runs ``--check`` in a container of its own; returns the exit status and what it said."""
    consumers: list[ConsumerContainer] = []

    def check(**changes: object) -> tuple[int, str]:
        consumer = ConsumerContainer({}, **changes)  # type: ignore[arg-type]
        consumers.append(consumer)
        consumer.start(["-m", "consumer", "--check"])
        return consumer.wait(), consumer.logs()

    yield check
    for consumer in consumers:
        consumer.close()


@pytest.mark.parametrize(
    "options",
    [
        {"hostname": "somewhere-else"},
        {"network_mode": "host"},
        {"network_mode": "none"},
        {"pid_mode": "host"},
        {"init": True},
    ],
    ids=str,
)
def test_it_finds_itself_however_it_is_run(checked: Checked, options: dict[str, object]) -> None:
    status, said = checked(options=options)
    assert status == 0, said


def test_a_directory_of_the_machine_will_do(checked: Checked, tmp_path: Path) -> None:
    mount = Mount("/var/lib", str(tmp_path), type="bind")
    status, said = checked(volume="", mounts=[mount])
    assert status == 0, said
    assert (tmp_path / "inferenceserver").is_dir()


@pytest.mark.parametrize(
    "options",
    [{"read_only": False}, {"read_only": True}, {"tmpfs": {DIRECTORY: "rw"}}],
    ids=["its own files", "a read-only root", "a tmpfs"],
)
def test_without_a_mount_it_names_what_to_mount(checked: Checked, options: dict[str, object]) -> None:
    status, said = checked(volume="", options=options)
    assert status == 2, said
    [line] = said.splitlines()
    assert line.startswith(f"CONSUMER_DIRECTORY: {DIRECTORY} ")
    assert "mount a named volume" in line


def test_a_place_that_is_given_is_believed_but_proven(checked: Checked) -> None:
    volume = f"rig-consumer-{secrets.token_hex(4)}"
    right = f"{engine().info()['DockerRootDir']}/volumes/{volume}/_data"
    for place, expected in ((right, 0), ("/nowhere", 3)):
        probe = ConsumerContainer({"CONSUMER_HOST_DIRECTORY": place}, volume=volume)
        try:
            probe.start(["-m", "consumer", "--check"])
            assert probe.wait() == expected, probe.logs()
        finally:
            probe.close()


def test_two_installations_in_containers_of_one_engine_have_names_of_their_own() -> None:
    # Given two consumers that were told no names and have the same path for their own volumes
    said = []
    for _ in range(2):
        consumer = ConsumerContainer({})
        try:
            consumer.start(["-c", PRINT_NAMES])
            assert consumer.wait() == 0, consumer.logs()
            said.append(consumer.logs().split())
        finally:
            consumer.close()
    # Then each is an installation of its own, on a node of the machine's name
    (one, node), (other, same_node) = said
    assert one != other
    assert node == same_node == engine().info()["Name"]
