"""Run all tests in two halves side by side: what needs the full stack, and the rest. Both wait more than they
work.

The first half's words go to a file and are shown when all has ended; the second's are shown as they come.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from setup.console import say
from setup.places import Places

# These share one stack, which must not be brought up twice.
STACK_FOLDERS = ("bundle", "e2e", "faults", "stack")
# `make test-swarm` runs these by themselves: they are about times, and bring engines of their own.
SWARM_FOLDER = "swarm"


def halves(tests: Path) -> tuple[list[str], list[str]]:
    """The tests of each half, those of the stack first; every one but the Swarm's is in one of them."""
    found = sorted({path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")} - {SWARM_FOLDER})
    with_stack = [f"{tests.name}/{name}" for name in found if name in STACK_FOLDERS]
    others = [f"{tests.name}/{name}" for name in found if name not in STACK_FOLDERS]
    return with_stack, others


def run_all(places: Places, environment: Mapping[str, str]) -> int:
    """Run both halves; the exit status of the one that went worse."""
    log = places.logs / "tests-of-the-stack.log"
    with_stack, others = halves(places.checkout / "tests")
    say(f"→ Testing {' '.join(with_stack)} beside the rest; what that says is in {log}")
    with log.open("w") as words:
        begun = [_begin(with_stack, environment, words.fileno()), _begin(others, environment, None)]
        try:
            status = _ends(begun)
        except KeyboardInterrupt:
            # The terminal told them too; they clean up what they started, and so shall not be left alone.
            status = _ends(begun)
    say(log.read_text(errors="replace"))
    return max(status)


def _begin(
    tests: Sequence[str], environment: Mapping[str, str], output: int | None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pytest", *tests]
    errors = None if output is None else subprocess.STDOUT
    return subprocess.Popen(command, env=dict(environment), stdout=output, stderr=errors)


def _ends(begun: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    # What a signal ended has a negative status; it did not go well either.
    return [abs(process.wait()) for process in begun]
