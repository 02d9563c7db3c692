"""The full stack while its parts are killed, frozen or wiped; after each test it must be whole again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.rig import remains
from tests.rig.api import Api
from tests.rig.fixtures import pytest_runtest_makereport
from tests.rig.polling import eventually
from tests.rig.stack import Stack

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="module")
def user(stack: Stack) -> Api:
    """A user of its own."""
    return stack.caller("user")


@pytest.fixture(scope="module")
def echo(stack: Stack) -> str:
    """A model that gives back what it was given."""
    return stack.admin.register("echo")


@pytest.fixture
def named() -> Callable[[int], str]:
    """An Idempotency-Key for each number of a test's tasks."""
    prefix = uuid.uuid4().hex
    return lambda number: f"{prefix}-{number}"


@pytest.fixture(autouse=True)
def whole_again(stack: Stack) -> Iterator[None]:
    """Whatever a test left frozen or dead goes on; then every attempt's remains must go."""
    yield
    for service in stack.services:
        state = service.container.attrs["State"]
        if state["Paused"]:
            service.unpause()
        if not state["Running"]:
            service.start()
        service.wait_healthy()
    stack.wait_until_ready()

    def attempts() -> list[str]:
        return [container.name for container in remains.containers(stack.installation, role="model")]

    eventually(lambda: not attempts(), 60, "no container of an attempt is left")
