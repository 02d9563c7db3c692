"""The full stack as one fixture for the whole session, brought up and taken down by pytest-docker.

`tests/conftest.py` enters. Whatever happens, no container, volume or network of the project stays.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services

from tests.rig.fixtures import explained
from tests.rig.stack import ROOT, Stack

# Low enough that a test may pass it.
MAX_INPUT_BYTES = 32 * 1024**2


@pytest.fixture(scope="session")
def stack_plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack's settings, secrets and images; its containers are pytest-docker's affair."""
    limits = {"MAX_INPUT_BYTES": str(MAX_INPUT_BYTES), "MAX_UPLOAD_BYTES": str(2 * MAX_INPUT_BYTES)}
    # Workers outside are let in, as an operator must want it.
    state = tmp_path_factory.mktemp("stack") / "state"
    plan = Stack(state, slots=2, PUBLIC_API_WORKER_ROUTES="1", **limits)
    plan.prepare()
    yield plan
    # pytest-docker does not clean up after a start that failed half-way. Where it did, this finds nothing.
    words = ["--project-name", plan.project, "--env-file", str(plan.places.stack_settings)]
    down = ["--file", str(ROOT / "compose.yaml"), "down", "--volumes", "--remove-orphans", "--timeout", "5"]
    subprocess.run([*plan.words, *words, *down], check=False, capture_output=True)


@pytest.fixture(scope="session")
def docker_compose_command(stack_plan: Stack) -> str:
    return shlex.join([*stack_plan.words, "--env-file", str(stack_plan.places.stack_settings)])


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "compose.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name(stack_plan: Stack) -> str:
    return stack_plan.project


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --remove-orphans --timeout 30"]


@pytest.fixture(scope="session")
def stack(stack_plan: Stack, docker_services: Services, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The stack, up; fails in the end when its consumers left anything on the engine."""
    with explained(stack_plan):
        stack_plan.wait_until_up()
        yield stack_plan
        left = stack_plan.leftovers()
    assert not left, f"the stack left behind: {left}"


def secrets_of(stack: Stack) -> dict[str, str]:
    """Every secret of the stack by its file's name; what is derived from others is left out."""
    derived = {"s3-access-key", "s3.json", "rabbitmq.json"}
    files = [path for path in stack.places.secrets.iterdir() if path.is_file() and path.name not in derived]
    return {path.name: Path(path).read_text().strip() for path in files}
