"""A node and the server's word about it: known, drained, one of two with a name, prepared, off the clock.

Real processes: a private API, and consumers on the tests' engine.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import ImageNotFound

from tests.models.images import engine
from tests.rig import remains, wrong_clock
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.processes import Service
from tests.rig.server import Server
from tests.rig.stocked_registry import StockedRegistry

STEPS = {"steps.txt": b"10"}
LOG = b"".join(b"step %d of 10\n" % step for step in range(1, 11))
COPIES = "/bin/busybox cp -R /input/. /output/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The private API, which callers speak to as well; each test has consumers of its own."""
    settings = {"DRAIN_SECONDS": "1", "CLAIM_WAIT_SECONDS": "0.5", "DISK_HIGH_PERCENT": "100"}
    server = Server(tmp_path_factory.mktemp("server"), slots=1, DISK_LOW_PERCENT="100", **settings)
    server.consumers.clear()
    server.url = server.private_url
    server.private_api.start()
    eventually(lambda: is_ready(server), 30, "the private API is ready")
    yield server
    assert server.stop() == []


def is_ready(server: Server) -> bool:
    try:
        return requests.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture
def add(server: Server) -> Iterator[Callable[..., Service]]:
    """Starts a consumer; all are stopped in the end."""
    added: list[Service] = []

    def start(node: str, **environment: str) -> Service:
        service = server.add_consumer(node, slots=1)
        server.consumers.remove(service)
        service.environment.update(
            {"CONSUMER_DIRECTORY": str(server.state / secrets.token_hex(4))} | environment
        )
        added.append(service)
        service.start()
        return service

    yield start
    for service in added:
        if service.log.exists():
            print(f"===== {service.name}\n{service.last_lines()}")
        service.stop()
    left = remains.all_but_contents(server.installation)
    remains.sweep(server.installation)
    assert left == []


def new_name() -> str:
    return f"node-{secrets.token_hex(3)}"


def node_of(server: Server, name: str) -> dict[str, Any] | None:
    answer = server.admin.get(f"/v1/nodes/{name}")
    return answer.json() if answer.status_code == 200 else None


def known(server: Server, name: str) -> dict[str, Any]:
    return eventually(lambda: node_of(server, name), 20, f"the server knows {name}")


def said(service: Service, action: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("action") == action]


def test_the_server_knows_a_node_from_its_start_to_its_end(
    server: Server, user: Api, add: Callable[..., Service]
) -> None:
    # Given a node
    name = new_name()
    service = add(name, NODE_LABELS="site=north")
    # Then the server knows what it is
    node = known(server, name)
    assert node["machine"]["cpus"] == engine().info()["NCPU"]
    assert node["machine"]["memory_bytes"] == engine().info()["MemTotal"]
    assert node["machine"]["engine_version"] == engine().version()["Version"]
    assert node["labels"] == {"site": "north"}
    assert [slot["name"] for slot in node["slots"]] == ["cpu-0"]
    assert node["gpus"] == []
    # And after its end, that it has left
    service.stop()
    assert known(server, name)["left"]


def test_an_operator_drains_and_resumes_a_node(
    server: Server, user: Api, add: Callable[..., Service]
) -> None:
    # Given a node with a model at work
    name = new_name()
    add(name)
    model = server.admin.register("slow-echo")
    task = user.running(user.submit(model, STEPS))
    # When it is drained
    assert server.admin.post(f"/v1/nodes/{name}/drain").status_code == 200
    # Then what runs goes on to its end
    assert user.ended(task)["state"] == "succeeded"
    # And the next task waits, through several times that a slot asks
    waiting = user.submit(server.admin.register("echo"))
    assert user.get(f"/v1/tasks/{waiting['id']}", headers={"Prefer": "wait=3"}).json()["state"] == "queued"
    # Until it is resumed
    assert server.admin.post(f"/v1/nodes/{name}/resume").status_code == 200
    assert user.ended(waiting, 15)["state"] == "succeeded"


def test_of_two_consumers_with_one_name_only_the_first_works(
    server: Server, user: Api, add: Callable[..., Service]
) -> None:
    # Given a node, and another machine that was given the same name
    name = new_name()
    first = add(name)
    known(server, name)
    second = add(name)
    # Then the other takes nothing, and says why
    [line] = eventually(lambda: said(second, "node_name_taken"), 20, "it says that the name is taken")
    assert name in line["message"]
    assert "NODE_NAME" in line["message"]
    assert len(second.processes()) == 1
    assert user.run(server.admin.register("echo"))["state"] == "succeeded"
    # When the first leaves
    first.stop()
    # Then the second takes its place at once
    eventually(lambda: len(second.processes()) > 1, 20, "its slot has begun")
    assert user.run(server.admin.register("echo"))["state"] == "succeeded"


def test_a_restart_is_no_stranger(server: Server, add: Callable[..., Service]) -> None:
    # Given a node that dies without a word
    name = new_name()
    service = add(name)
    known(server, name)
    service.kill()
    # When it is started again, at once
    service.start()
    # Then it works
    eventually(lambda: len(service.processes()) > 1, 20, "its slot has begun")
    assert said(service, "node_name_taken") == []


def test_a_node_begins_without_a_server(server: Server, user: Api, add: Callable[..., Service]) -> None:
    server.private_api.stop()
    service = add(new_name())
    eventually(lambda: len(service.processes()) > 1, 20, "its slot has begun")
    server.private_api.start()
    eventually(lambda: is_ready(server), 30, "the private API is ready")
    assert user.run(server.admin.register("echo"))["state"] == "succeeded"
    known(server, service.environment["NODE_NAME"])


@pytest.fixture
def registry() -> Iterator[StockedRegistry]:
    registry = StockedRegistry(login=f"reader:{secrets.token_hex(8)}")
    yield registry
    registry.close()
    for image in engine().images.list():
        for tag in image.tags:
            if tag.startswith(f"{registry.address}/"):
                with suppress(ImageNotFound):
                    engine().images.remove(tag, force=True)


def credentials(directory: Path, registry: StockedRegistry, login: str | None = None) -> Path:
    file = directory / "config.json"
    auth = base64.b64encode((login or registry.login or "").encode()).decode()
    file.write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
    return file


def test_what_a_model_needs_is_here_before_its_first_task(
    server: Server, add: Callable[..., Service], registry: StockedRegistry, tmp_path: Path
) -> None:
    # Given a node that may read a private registry
    name = new_name()
    service = add(name, REGISTRY_CREDENTIALS_FILE=str(credentials(tmp_path, registry)))
    known(server, name)
    # When a model with static content is registered
    tag = registry.add("stock/ahead", "1", COPIES)
    server.admin.register("echo", container_tag=tag, content={"weights": secrets.token_bytes(5000)})
    # Then its image and its content come, although nobody has sent a task
    place = Path(service.environment["CONSUMER_DIRECTORY"]) / "contents"
    eventually(lambda: tag in (node_of(server, name) or {})["images"], 30, "the server hears of the image")
    eventually(lambda: [path for path in place.glob("*") if path.is_dir()], 20, "the content is here")
    assert registry.pulled


def test_a_private_registry_is_told_who_asks_and_nobody_else_is(
    server: Server, user: Api, add: Callable[..., Service], registry: StockedRegistry, tmp_path: Path
) -> None:
    # Given a node with the wrong password
    wrong = f"reader:{secrets.token_hex(8)}"
    file = credentials(tmp_path, registry, wrong)
    service = add(new_name(), REGISTRY_CREDENTIALS_FILE=str(file))
    model = server.admin.register("echo", container_tag=registry.add("stock/private", "1", COPIES))
    ended = user.run(model)
    assert (ended["state"], ended["reason_code"]) == ("failed", "image_unavailable"), ended
    # When it is given the right one
    credentials(tmp_path, registry)
    # Then it need not be started again
    assert user.run(model)["state"] == "succeeded"
    # And neither is to be read anywhere
    assert registry.login is not None
    for login in (wrong, registry.login):
        password = login.partition(":")[2]
        assert password not in service.log.read_text()
        assert password not in ended["reason"]
        assert base64.b64encode(login.encode()).decode() not in service.log.read_text()


def test_credentials_that_cannot_be_read_stop_the_start_with_one_line(
    server: Server, tmp_path: Path, add: Callable[..., Service]
) -> None:
    service = add(new_name(), REGISTRY_CREDENTIALS_FILE=str(tmp_path / "nowhere.json"))
    eventually(lambda: not service.running, 20, "it has ended")
    assert service.exit_status == 2
    [line] = service.log.read_text().splitlines()
    assert line.startswith("REGISTRY_CREDENTIALS_FILE: ")


@pytest.mark.parametrize("offset", [600.0, -600.0], ids=["ahead", "behind"])
def test_a_node_whose_clock_is_off_works_as_any_other(
    server: Server, user: Api, add: Callable[..., Service], tmp_path: Path, offset: float
) -> None:
    # Given a node that is ten minutes off, and a model that may run for less
    service = add(new_name(), **wrong_clock.environment(tmp_path, offset))
    model = server.admin.register("slow-echo", time_seconds=60)
    task = user.running(user.submit(model, STEPS))
    # When it even dies on the way, and adopts what it left
    eventually(lambda: user.get(task["urls"]["logs"]).content, 10, "it has said something")
    service.kill()
    service.start()
    # Then the task ends once, in time and well
    ended = user.ended(task)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
    assert user.output(ended) == STEPS
    assert user.log(ended) == LOG
    # And the clock was off, or this test would show nothing
    began = said(service, "consumer_began")[0]["time"]
    assert not began.startswith(ended["created_at"][:15])
