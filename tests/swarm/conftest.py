"""Three machines in one Swarm for the whole session; `make test-swarm` runs this folder.

The first is the home and, but for what is about it, has no consumer, so that a test knows where tasks can
run. A test that breaks something mends it; ``mended`` sees to the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.rig.api import Api
from tests.rig.fixtures import explained, pytest_runtest_makereport
from tests.rig.nodes import Node
from tests.rig.polling import eventually
from tests.rig.swarm import Stopwatch, SwarmStack, at_once
from tests.swarm.sleeper import SITE, Sleeper

__all__ = ["pytest_runtest_makereport"]

# A task is handed back soon, and a small disk is full when little is left on it.
SETTINGS = {"CPU_SLOTS": "2", "DRAIN_SECONDS": "3", "MINIMUM_FREE_BYTES": str(32 * 1024**2)}
_STOPWATCH = Stopwatch()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole machines take their time, above all the first test's, which waits until all of them are there."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(360))


@pytest.fixture(scope="session")
def stopwatch() -> Stopwatch:
    """Times of recovery; shown at the end."""
    return _STOPWATCH


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table for docs/reliability.md."""
    for what, seconds in _STOPWATCH.laps.items():
        terminalreporter.write_line(f"recovery: {what}: {seconds:.1f} s")


@pytest.fixture(scope="session")
def swarm(tmp_path_factory: pytest.TempPathFactory, stopwatch: Stopwatch) -> Iterator[SwarmStack]:
    """The stack, up, with consumers on the second and third machine; in the end nothing is left of it."""
    cluster = SwarmStack(tmp_path_factory.mktemp("swarm") / "state", **SETTINGS)
    try:
        with explained(cluster):
            cluster.add()
            cluster.add()
            cluster.add(volumes_size="256m", flags=["--label", "site=north"])
            cluster.begin()
            cluster.label(cluster.home, "off")
            stopwatch.begin()
            for node in cluster.machines[1:]:
                cluster.join(node)
            cluster.wait_for_consumers(*cluster.machines[1:])
            stopwatch.lap("two machines join: both consumers heard")
            yield cluster
            at_once([partial(cluster.make, "swarm-leave", node, PURGE="1") for node in cluster.machines[1:]])
            cluster.make("swarm-leave", PURGE="1")
            remaining = cluster.remains()
        assert not remaining, f"the stack left behind: {remaining}"
    finally:
        left = cluster.close()
    assert not left, f"the machines left behind: {left}"


@pytest.fixture(scope="session")
def second(swarm: SwarmStack) -> Node:
    return swarm.machines[1]


@pytest.fixture(scope="session")
def third(swarm: SwarmStack) -> Node:
    return swarm.machines[2]


@pytest.fixture(scope="module")
def sleeper(swarm: SwarmStack, admin: Api, user: Api) -> Iterator[Sleeper]:
    """A machine more that stands still from its first use on; it leaves with the last test of the file."""
    sleeper = Sleeper(swarm)
    try:
        swarm.stock(sleeper.node)
        swarm.join(sleeper.node)
        swarm.wait_for_consumers(sleeper.node)
        model = admin.register("slow-echo", node_labels={"site": SITE})
        task = user.submit(model, {"steps.txt": b"50"})
        assert swarm.where(task) is sleeper.node
        # From now on any machine will do.
        assert admin.call("PATCH", f"/v1/models/{model}", json={"node_labels": None}).status_code == 200
        sleeper.fall_asleep(task)
        yield sleeper
    finally:
        sleeper.leave()


@pytest.fixture(scope="session")
def registry(swarm: SwarmStack) -> None:
    """The stack's own registry, which the first three machines trust."""
    swarm.make("registry-up", ADVERTISE=swarm.home.address)
    script = swarm.places.registry / "join.sh"
    for node in swarm.machines[:3]:
        assert "The engine trusts" in node.run("sh", str(script))


@pytest.fixture(scope="session")
def admin(swarm: SwarmStack) -> Api:
    return swarm.admin


@pytest.fixture(scope="session")
def user(swarm: SwarmStack) -> Api:
    return swarm.caller("user")


@pytest.fixture(scope="session")
def model(admin: Api) -> Callable[[str], str]:
    """Gives the id under which a tiny model is registered, once per session."""
    registered: dict[str, str] = {}

    def registered_as(name: str) -> str:
        if name not in registered:
            registered[name] = admin.register(name)
        return registered[name]

    return registered_as


@pytest.fixture(autouse=True)
def mended(swarm: SwarmStack) -> Iterator[None]:
    """Both consumers are there before each test, and no model's container after it."""
    swarm.wait_for_consumers(*swarm.machines[1:3])
    yield
    for node in swarm.machines[:3]:
        if not node.running:
            node.start()
        node.thaw()
        node.mend()
    swarm.wait_for_consumers(*swarm.machines[1:3])
    for node in swarm.machines[:3]:
        eventually(partial(_is_empty, swarm, node), 60, f"no model is left on {node.host_name}")


def _is_empty(swarm: SwarmStack, node: Node) -> bool:
    return not swarm.models_of(node)
