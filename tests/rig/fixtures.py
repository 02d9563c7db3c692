"""What ``e2e`` and ``chaos`` share: servers that start, are explained, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.rig.api import Api
from tests.rig.server import Server


class Explained(Protocol):
    """What can tell how it is, when a test failed."""

    def description(self) -> list[tuple[str, str]]: ...


_RUNNING: list[Explained] = []


@contextmanager
def explained(server: Explained) -> Generator[None]:
    """Add to every test that fails meanwhile what ``server`` tells."""
    _RUNNING.append(server)
    try:
        yield
    finally:
        _RUNNING.remove(server)


@contextmanager
def running_server(
    state: Path, *, slots: int = 2, consumer: Mapping[str, str] | None = None, **settings: str
) -> Generator[Server]:
    """A server from its start to its end; fails when it leaves anything behind.

    ``consumer`` are settings that its first consumer has for itself.
    """
    server = Server(state, slots=slots, **settings)
    server.consumer.environment.update(consumer or {})
    with explained(server):
        try:
            server.start()
            yield server
        finally:
            left = server.stop()
    if left:
        for title, text in server.description():
            print(f"===== {title}\n{text}")
    assert not left, f"the server left behind: {left}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failed test what every process said last, and what is on the engine."""
    report = yield
    if report.failed:
        for server in _RUNNING:
            report.sections.extend(server.description())
    return report


@pytest.fixture(scope="session")
def admin(server: Server) -> Api:
    """The first admin of the folder's ``server``."""
    return server.admin


@pytest.fixture(scope="session")
def user(server: Server) -> Api:
    """A user of its own."""
    return server.caller("user")


@pytest.fixture(scope="session")
def model(admin: Api) -> Callable[[str], str]:
    """Gives the id under which a tiny model is registered with ordinary settings, once per session."""
    registered: dict[str, str] = {}

    def registered_as(tiny_model: str) -> str:
        if tiny_model not in registered:
            registered[tiny_model] = admin.register(tiny_model)
        return registered[tiny_model]

    return registered_as
