"""The directory in which a service's processes count: new at every start, gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_BEGIN = """
import os, sys
from pathlib import Path
from serving.metrics_directory import use_fresh_directory
directory = use_fresh_directory(Path(sys.argv[1]))
from prometheus_client import Counter, Gauge
from serving.metrics import exposition, forget_process, registry_of_service
"""
_COUNT = """
tasks = Counter("inferenceserver_tasks", "Tasks.")
busy = Gauge("inferenceserver_busy", "Busy.", multiprocess_mode="livesum")
pids = []
for number in (3, 4):
    pid = os.fork()
    if pid == 0:
        tasks.inc(number)
        busy.set(1)
        os._exit(0)
    os.waitpid(pid, 0)
    pids.append(pid)
forget_process(pids[0])
print(exposition(registry_of_service("test")).decode())
"""


def python(script: str, *arguments: str) -> str:
    """What a new interpreter prints, where no directory has been chosen."""
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(script: str, parent: Path) -> str:
    return python(_BEGIN + script, str(parent))


def test_what_processes_count_is_added_up_and_the_dead_have_no_present(tmp_path: Path) -> None:
    # When two forks count, and one of them is known to have ended
    lines = run(_COUNT, tmp_path).splitlines()

    # Then both have counted, and only the other is still busy
    assert "inferenceserver_tasks_total 7.0" in lines
    assert "inferenceserver_busy 1.0" in lines


def test_a_start_begins_at_zero_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = (sorted(run(_COUNT, tmp_path).splitlines()) for _ in range(2))

    assert first == second
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_service_left_is_removed_by_the_next_and_a_living_one_is_left_alone(
    tmp_path: Path,
) -> None:
    # Given a service that was killed, and one that lives
    script = _BEGIN + "print(directory, flush=True)\nsys.stdin.read()"
    services = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        killed, living = (Path(service.stdout.readline().strip()) for service in services if service.stdout)
        services[0].send_signal(signal.SIGKILL)
        services[0].wait()
        assert killed.is_dir()

        # When another starts
        run("", tmp_path)

        # Then only what the dead one left has gone
        assert not killed.exists()
        assert living.is_dir()
    finally:
        for service in services:
            service.kill()
            service.communicate()


def test_in_one_process_without_a_directory_metrics_are_shown_all_the_same() -> None:
    shown = python(
        "from prometheus_client import Counter\n"
        "from serving.metrics import exposition, registry_of_service\n"
        'Counter("inferenceserver_things", "Things.").inc(2)\n'
        'print(exposition(registry_of_service("test")).decode())'
    )

    assert "inferenceserver_things_total 2.0" in shown
    assert "inferenceserver_build_info{" in shown
    # Nothing but ours: what Python itself counts differs between the two ways of counting.
    assert "python_gc" not in shown


@pytest.mark.parametrize("module", ["consumer.metrics", "serving.metrics", "serving.logs"])
def test_a_node_needs_no_web_framework_to_count(module: str) -> None:
    frameworks = "{'flask', 'gunicorn', 'sqlalchemy'}"
    assert python(f"import sys, {module}; print({frameworks} & set(sys.modules))").strip() == "set()"


_BEGIN_AMONG_OTHERS = """
import fcntl, os, sys
from pathlib import Path
from serving import metrics_directory
parent, lock = Path(sys.argv[1]), fcntl.flock

def after_another_start(descriptor, kind):
    fcntl.flock = lock
    metrics_directory._remove_abandoned(parent)
    lock(descriptor, kind)

fcntl.flock = after_another_start
print(metrics_directory.use_fresh_directory(parent).is_dir())
"""


def test_a_service_that_starts_beside_another_keeps_its_directory(tmp_path: Path) -> None:
    # When another service tidies up in the moment before this one has its lock, then that is no leftover
    assert python(_BEGIN_AMONG_OTHERS, str(tmp_path)).split() == ["True"]
