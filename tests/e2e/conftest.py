"""One server for all end-to-end tests: real processes, the real engine, nothing pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.api import Api
from tests.rig.fixtures import admin, model, pytest_runtest_makereport, running_server, user
from tests.rig.registry import Registry
from tests.rig.server import Server

__all__ = ["admin", "model", "pytest_runtest_makereport", "user"]

# Low enough that a test may pass it.
MAX_INPUT_BYTES = 32 * 1024**2

Register = Callable[..., str]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = {"MAX_INPUT_BYTES": str(MAX_INPUT_BYTES), "MAX_UPLOAD_BYTES": str(2 * MAX_INPUT_BYTES)}
    with running_server(tmp_path_factory.mktemp("server"), slots=2, **limits) as server:
        yield server


@pytest.fixture(scope="session")
def stranger(server: Server) -> Api:
    """A second user, who must see nothing of the first."""
    return server.caller("user")


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture
def busy(server: Server, admin: Api) -> Iterator[list[dict[str, Any]]]:
    """Both slots taken by tasks that never end, so that whatever else is sent stays queued."""
    sleeper = admin.register("sleeps-for-ever")
    tasks = [admin.submit(sleeper) for _ in range(2)]
    for task in tasks:
        admin.running(task)
    yield tasks
    for task in tasks:
        admin.post(f"/v1/tasks/{task['id']}/cancel")
    for task in tasks:
        admin.ended(task)
