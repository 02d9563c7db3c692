"""One server for all end-to-end tests: real processes, the real engine, nothing pretended.

Every test runs twice: on the embedded server, and on the full stack through its proxy over TLS. A test that
needs what only one of them has is marked ``stands("embedded", reason=…)``. `--stand=` leaves one out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rig.api import Api
from tests.rig.fixtures import admin, model, pytest_runtest_makereport, running_server, user
from tests.rig.registry import Registry
from tests.rig.server import Server
from tests.rig.stack import Stack
from tests.rig.stack_fixtures import MAX_INPUT_BYTES

__all__ = ["admin", "model", "pytest_runtest_makereport", "user"]

Register = Callable[..., str]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever needs a server once on each way to stand up the same code."""
    if "server" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--stand")
        stands = ["embedded", "stack"] if asked == "both" else [asked]
        marker = metafunc.definition.get_closest_marker("stands")
        allowed = marker.args if marker else stands
        chosen = [stand for stand in stands if stand in allowed]
        metafunc.parametrize("server", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | Stack]:
    if request.param == "stack":
        yield request.getfixturevalue("stack")
        return
    limits = {"MAX_INPUT_BYTES": str(MAX_INPUT_BYTES), "MAX_UPLOAD_BYTES": str(2 * MAX_INPUT_BYTES)}
    with running_server(tmp_path_factory.mktemp("server"), slots=2, **limits) as server:
        yield server


@pytest.fixture(autouse=True)
def trust(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every client of a test trust the stack's certificates: `curl`, `infer`, whatever it starts."""
    server = request.getfixturevalue("server") if "server" in request.fixturenames else None
    if isinstance(server, Stack):
        for name, value in server.trust().items():
            monkeypatch.setenv(name, value)


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
