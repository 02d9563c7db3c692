"""Runs the measurements named on the command line, or all of them, and prints one table."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import large_bodies, small_task, submits
from benchmarks.figures import table
from tests.rig.server import Server

_MEASUREMENTS = {"small-task": small_task, "submits": submits, "large-bodies": large_bodies}


def main(arguments: list[str]) -> int:
    """Measure; the exit status says whether every target was met."""
    unknown = set(arguments) - set(_MEASUREMENTS)
    if unknown:
        print(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(_MEASUREMENTS)}")
        return 2
    figures = []
    for name in arguments or _MEASUREMENTS:
        with tempfile.TemporaryDirectory() as directory:
            server = Server(Path(directory) / "state")
            server.start()
            try:
                figures += _MEASUREMENTS[name].measure(server)
            finally:
                left = server.stop()
                print("\n".join(left), file=sys.stderr, end="")
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
