"""Runs the measurements named on the command line, or all of them, and prints one table."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import announce_to_claim, large_bodies, queue_depth, small_task, submit_rate, submits
from benchmarks.figures import table
from tests.rig.parts import Part, start_postgres, start_rabbitmq
from tests.rig.server import Server

_MEASUREMENTS: dict[str, Any] = {
    "small-task": small_task,
    "submits": submits,
    "large-bodies": large_bodies,
    "queue-depth": queue_depth,
    "submit-rate": submit_rate,
    "announce-to-claim": announce_to_claim,
}
# What a measurement may name in its PARTS: how it is started, and the setting that leads the server to it.
_PARTS: dict[str, tuple[Callable[[], Part], str]] = {
    "postgres": (start_postgres, "DATABASE_URL"),
    "rabbitmq": (start_rabbitmq, "BROKER_URL"),
}


def main(arguments: list[str]) -> int:
    """Measure; the exit status says whether every target was met."""
    unknown = set(arguments) - set(_MEASUREMENTS)
    if unknown:
        print(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(_MEASUREMENTS)}")
        return 2
    figures = []
    for name in arguments or _MEASUREMENTS:
        measurement = _MEASUREMENTS[name]
        with tempfile.TemporaryDirectory() as directory, _parts(getattr(measurement, "PARTS", ())) as parts:
            settings = {_PARTS[part][1]: started.url for part, started in parts.items()}
            server = Server(Path(directory) / "state", **settings)
            server.start()
            try:
                figures += measurement.measure(server, **parts)
            finally:
                left = server.stop()
                print("\n".join(left), file=sys.stderr, end="")
    print(table(figures))
    return 0 if all(figure.met for figure in figures) else 1


@contextmanager
def _parts(names: Iterable[str]) -> Iterator[dict[str, Part]]:
    with ExitStack() as stack:
        parts = {}
        for name in names:
            parts[name] = _PARTS[name][0]()
            stack.callback(parts[name].remove)
        yield parts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
