"""What every folder of tests may ask for: the real services, one of each for the whole session."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from tests.rig.parts import Part, start_postgres, start_rabbitmq, start_s3
from tests.rig.stack_fixtures import (
    docker_cleanup,
    docker_compose_command,
    docker_compose_file,
    docker_compose_project_name,
    docker_setup,
    stack,
    stack_plan,
)

__all__ = [
    "docker_cleanup",
    "docker_compose_command",
    "docker_compose_file",
    "docker_compose_project_name",
    "docker_setup",
    "stack",
    "stack_plan",
]

# A shell that runs us in its background has Ctrl-C ignored, and whatever we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--stand=embedded` or `--stand=stack` leaves the other one out of the end-to-end tests."""
    parser.addoption("--stand", choices=["both", "embedded", "stack"], default="both")


def _for_the_session(start: Callable[[], Part]) -> Iterator[Part]:
    part = start()
    yield part
    part.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Part]:
    """A PostgreSQL server that no test stops; each test makes a database of its own."""
    yield from _for_the_session(start_postgres)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Part]:
    """A RabbitMQ broker that no test stops."""
    yield from _for_the_session(start_rabbitmq)


@pytest.fixture(scope="session")
def s3() -> Iterator[Part]:
    """An S3 store that no test stops; each test makes a bucket of its own."""
    yield from _for_the_session(start_s3)
