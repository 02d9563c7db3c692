"""A server whose processes are killed at will; after each test it must be whole again, and clean."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig import remains
from tests.rig.api import Api
from tests.rig.fixtures import admin, model, pytest_runtest_makereport, running_server, user
from tests.rig.polling import eventually
from tests.rig.server import Server

__all__ = ["admin", "model", "pytest_runtest_makereport", "user"]

SLOTS = 2


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("chaos"), slots=SLOTS, DRAIN_SECONDS="1") as server:
        yield server


@pytest.fixture(autouse=True)
def whole_again(server: Server, user: Api) -> Iterator[None]:
    """Whatever was killed is started again; then every task ends, and nothing of an attempt is left."""
    yield
    for service in (server.private_api, server.public_api, server.consumer):
        if not service.running:
            service.start()
    server.wait_until_ready()
    eventually(lambda: not unfinished(user), 60, "every task has ended")
    eventually(lambda: not left_behind(server), 60, "only what idle slots keep is left")


def unfinished(user: Api) -> list[str]:
    states = ("queued", "starting", "running")
    return [
        task["id"]
        for state in states
        for task in user.get("/v1/tasks", params={"state": state, "limit": 1000}).json()["items"]
    ]


def left_behind(server: Server) -> list[str]:
    """Containers of attempts, and workspaces beyond the one that each idle slot of a live node prepares."""
    left = [container.name for container in remains.containers(server.installation, role="model")]
    spare = 0
    for consumer in server.consumers:
        place = server.state / "consumers" / consumer.environment["NODE_NAME"]
        workspaces = list(map(str, remains.workspaces(place)))
        allowed = int(consumer.environment["CPU_SLOTS"]) if consumer.running else 0
        spare += min(allowed, len(workspaces))
        if len(workspaces) > allowed:
            left += workspaces
    volumes = [name for name in remains.attempt_remains(server.installation) if name.startswith("volume")]
    # Input, output and progress of each.
    return left + (volumes if len(volumes) > 3 * spare else [])
