"""The engine dies or is restarted under a running model: its task ends once and well, nothing is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.models.images import image_of
from tests.rig import remains
from tests.rig.api import Api
from tests.rig.engine import OwnEngine
from tests.rig.polling import eventually
from tests.rig.server import Server

# Five steps a second. What an engine keeps alive has to outlive that engine's death and its next start.
SHORT, LONG = 15, 60
INSTALLATION, ROLE = "org.inferenceserver.installation", "org.inferenceserver.role"
MODELS = ("slow-echo", "bows-to-sigterm")
# An idle slot keeps a workspace ready: input, output and progress.
IDLE_VOLUMES = 3


@pytest.fixture(scope="module", params=["", "--live-restore"], ids=["plain", "live-restore"])
def engine(request: pytest.FixtureRequest) -> Iterator[OwnEngine]:
    """An engine of our own, set to keep containers alive without it or not."""
    if os.geteuid() != 0:
        pytest.skip("only root may start an engine")
    engine = OwnEngine([request.param] if request.param else [])
    try:
        engine.start()
        for model in MODELS:
            engine.load(image_of(model))
        yield engine
    finally:
        engine.close()
    assert engine.traces() == []


@pytest.fixture(scope="module")
def keeps_containers(engine: OwnEngine) -> bool:
    return bool(engine.client.info()["LiveRestoreEnabled"])


@pytest.fixture(scope="module")
def server(
    engine: OwnEngine, keeps_containers: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The private API and one slot that works with that engine; callers need no more."""
    settings = {"DOCKER_HOST": engine.host, "DRAIN_SECONDS": "1", "CLAIM_WAIT_SECONDS": "0.5"}
    server = Server(tmp_path_factory.mktemp("server"), slots=1, **settings)
    server.url = server.private_url
    server.private_api.start()
    eventually(lambda: is_ready(server), 30, "the private API is ready")
    server.consumer.start()
    yield server
    assert server.stop() == []
    assert containers_on(engine, server) == []
    if not keeps_containers:
        assert volumes_on(engine, server) == []


def is_ready(server: Server) -> bool:
    try:
        return requests.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture(scope="module")
def model(server: Server) -> Callable[[str], str]:
    registered: dict[str, str] = {}
    return lambda name: registered.setdefault(name, server.admin.register(name))


@pytest.fixture(autouse=True)
def whole_again(server: Server, engine: OwnEngine, keeps_containers: bool) -> Iterator[None]:
    """After each death only what an idle slot keeps is left, on the engine and on the disk.

    An engine that kept containers alive keeps their volumes, empty, until it is restarted without any.
    """
    yield
    if not engine.running:
        engine.start()
    for title, text in [*server.description(), ("dockerd", engine.last_lines())]:
        print(f"===== {title}\n{text}")
    eventually(lambda: not models_on(engine, server), 60, "no container of a model is left")
    if not keeps_containers:
        eventually(lambda: len(volumes_on(engine, server)) <= IDLE_VOLUMES, 30, "no volume is left")
    eventually(lambda: len(workspaces(server)) <= 1, 60, "no directory of an attempt is left")


def workspaces(server: Server) -> list[Path]:
    consumers = (server.state / "consumers").glob("*")
    return [path for consumer in consumers for path in remains.workspaces(consumer)]


def models_on(engine: OwnEngine, server: Server) -> list[str]:
    wanted = [f"{INSTALLATION}={server.installation}", f"{ROLE}=model"]
    return [
        str(found.id)
        for found in engine.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)
    ]


def volumes_on(engine: OwnEngine, server: Server) -> list[str]:
    wanted = {"label": f"{INSTALLATION}={server.installation}"}
    return [str(found.id) for found in engine.client.volumes.list(filters=wanted)]


def containers_on(engine: OwnEngine, server: Server) -> list[str]:
    wanted = {"label": f"{INSTALLATION}={server.installation}"}
    return [
        str(found.name)
        for found in engine.client.containers.list(all=True, filters=wanted, ignore_removed=True)
    ]


@pytest.mark.parametrize(
    ("death", "tiny_model"),
    [(OwnEngine.kill, "slow-echo"), (OwnEngine.terminate, "bows-to-sigterm")],
    ids=MODELS,
)
def test_a_task_outlives_the_engine(
    engine: OwnEngine,
    keeps_containers: bool,
    server: Server,
    user: Api,
    model: Callable[[str], str],
    tiny_model: str,
    death: Callable[[OwnEngine], None],
) -> None:
    # Given a model in the middle of its work
    outputs = outputs_of(server)
    steps = LONG if keeps_containers else SHORT
    told = {"steps.txt": b"%d" % steps}
    task = user.running(user.submit(model(tiny_model), told))
    eventually(lambda: user.get(task["urls"]["logs"]).content, 10, "it has said something")
    # When its engine dies and is started again
    death(engine)
    engine.start()
    # Then the task ends well, with all of its output, once
    ended = user.ended(task)
    assert ended["state"] == "succeeded", ended
    assert user.output(ended) == told
    assert len(outputs_of(server)) == len(outputs) + 1
    # And it was run again only where the engine had ended its model
    log = user.log(ended)
    whole = b"".join(b"step %d of %d\n" % (step, steps) for step in range(1, steps + 1))
    if keeps_containers:
        assert (ended["attempt"], log) == (1, whole), ended
    else:
        assert ended["attempt"] == 2, ended
        assert log.endswith(whole), log


def outputs_of(server: Server) -> list[Path]:
    return list((server.state / "blobs").glob("output*/*"))
