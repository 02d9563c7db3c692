"""Run all tests in three lanes side by side, since all of them wait more than they work: what needs the full
stack; what ends engines and brokers of its own, after the quick ones; and the rest.

The first lanes' words go to files and are shown when all has ended; the last one's are shown as they come.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from setup.console import say
from setup.places import Places

# `make test-swarm` runs these by themselves. They make machines out of namespaces, which takes root on Linux;
# last in their lane, since they are about times and the others end about then.
SWARM_FOLDER = "swarm"
# The folders of all lanes but the last, of which all take about as long. The first three share one stack.
FOLDERS = {
    "stack": ("e2e", "faults", "stack", "bundle"),
    "machines": ("contract", "unit", "broker", "chaos", SWARM_FOLDER),
}
REST = "rest"


@dataclass(frozen=True)
class Lane:
    """Tests that run one after the other."""

    name: str
    tests: tuple[str, ...]


def lanes(tests: Path, *, with_swarm: bool) -> list[Lane]:
    """All folders of tests, the Swarm's if it can be had, each in one lane; the last has the rest."""
    found = sorted({path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")})
    named = {name for folders in FOLDERS.values() for name in folders}
    rest = tuple(name for name in found if name not in named)
    return [
        Lane(lane, tuple(f"{tests.name}/{name}" for name in folders if with_swarm or name != SWARM_FOLDER))
        for lane, folders in {**FOLDERS, REST: rest}.items()
    ]


def run_all(places: Places, environment: Mapping[str, str], *, with_swarm: bool) -> int:
    """Run all lanes; the exit status of the one that went worst."""
    *beside, last = lanes(places.checkout / "tests", with_swarm=with_swarm)
    logs = [places.logs / f"tests-{lane.name}.log" for lane in beside]
    for lane, log in zip(beside, logs, strict=True):
        say(f"→ Testing {' '.join(lane.tests)} beside the rest; what that says is in {log}")
    begun = []
    for lane, log in zip(beside, logs, strict=True):
        with log.open("w") as words:
            begun.append(_begin(lane, environment, words.fileno()))
    begun.append(_begin(last, environment, None))
    try:
        status = _ends(begun)
    except KeyboardInterrupt:
        # The terminal told them too; they clean up what they started, and so shall not be left alone.
        status = _ends(begun)
    for log in logs:
        say(log.read_text(errors="replace"))
    return max(status)


def _begin(lane: Lane, environment: Mapping[str, str], output: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *lane.tests]
    errors = None if output is None else subprocess.STDOUT
    # Services start some hundred times and shall not be compiled each time, whatever the caller prefers.
    compiling = {**environment, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.Popen(command, env=compiling, stdout=output, stderr=errors)


def _ends(begun: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    # What a signal ended has a negative status; it did not go well either.
    return [abs(process.wait()) for process in begun]
