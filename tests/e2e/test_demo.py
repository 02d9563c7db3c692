"""`make demo` as a newcomer runs it: twice, on a state directory and a port of its own; then `make down`."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import remains
from tests.rig.polling import eventually

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Newcomer:
    """Somebody with a checkout, a port and a state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = free_port()

    def make(self, target: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STATE_DIRECTORY": str(self.state), "PORT": str(self.port), **settings}
        # make would take these for its own, were the tests started by one.
        for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
            environment.pop(name, None)
        return subprocess.run(
            ["make", "--no-print-directory", target],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def is_heard(self) -> bool:
        """Whether anybody listens on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def curl(self, *arguments: str) -> str:
        key = (self.state / "admin.key").read_text().strip()
        command = ["curl", "-sSf", "-H", f"Authorization: Bearer {key}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    somebody = Newcomer(tmp_path_factory.mktemp("demo") / "state")
    yield somebody
    somebody.make("down")
    installation = somebody.state / "installation"
    if installation.exists():
        # The cached weights stay after `make down`, on purpose; here they go.
        remains.sweep(installation.read_text().strip())


@pytest.mark.timeout(900)
def test_the_demo_ends_with_a_result_and_the_way_on(newcomer: Newcomer) -> None:
    # when
    done = newcomer.make("demo")

    # then
    assert done.returncode == 0, done.stdout + done.stderr
    with (newcomer.state / "demo" / "result" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = [row for row in rows if row["file"].endswith(f"-is-{row['digit']}.png")]
    assert len(right) > 0.9 * len(rows) > 0
    assert f"http://127.0.0.1:{newcomer.port}/v1/tasks?model_human_readable_id=digits" in done.stdout
    key = newcomer.state / "admin.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().strip() not in done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_a_second_run_uses_what_is_there(newcomer: Newcomer) -> None:
    # given
    key = (newcomer.state / "admin.key").read_text()

    # when
    done = newcomer.make("demo")

    # then
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs already" in done.stdout
    assert (newcomer.state / "admin.key").read_text() == key


@pytest.mark.timeout(300)
def test_a_taken_port_is_said_and_nothing_is_started(newcomer: Newcomer) -> None:
    # given
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])

        # when
        done = newcomer.make("demo", PORT=port)

    # then
    assert done.returncode != 0
    assert port in done.stderr + done.stdout
    assert newcomer.curl(f"http://127.0.0.1:{newcomer.port}/readyz"), "the first server goes on"


@pytest.mark.timeout(300)
def test_services_end_with_a_killed_supervisor_and_the_demo_starts_them_again(newcomer: Newcomer) -> None:
    # given
    os.kill(int((newcomer.state / "run" / "supervisord.pid").read_text()), signal.SIGKILL)

    # when
    eventually(lambda: not newcomer.is_heard(), 60, "the services have ended")
    done = newcomer.make("demo")

    # then
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_down_stops_the_server_and_keeps_its_data(newcomer: Newcomer) -> None:
    # given
    installation = (newcomer.state / "installation").read_text().strip()

    # when
    done = newcomer.make("down")

    # then
    assert done.returncode == 0, done.stdout + done.stderr
    assert not newcomer.is_heard()
    assert remains.all_but_contents(installation) == []
    assert (newcomer.state / "database.sqlite").exists()
