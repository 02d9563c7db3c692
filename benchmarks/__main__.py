"""Runs the measurements named on the command line, or all of them, and prints one table."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import (
    announce_to_claim,
    dispatch,
    full_stack,
    large_bodies,
    many_workers,
    queue_depth,
    small_task,
    submit_rate,
    submits,
)
from benchmarks.figures import Figure, table
from setup.stack.stack_settings import Chosen, parse
from tests.rig.parts import Part, start_postgres, start_rabbitmq
from tests.rig.ports import free_ports
from tests.rig.server import Server
from tests.rig.stack import Stack
from tests.rig.swarm import SwarmStack

_MEASUREMENTS: dict[str, Any] = {
    "small-task": small_task,
    "submits": submits,
    "large-bodies": large_bodies,
    "queue-depth": queue_depth,
    "submit-rate": submit_rate,
    "announce-to-claim": announce_to_claim,
    "many-workers": many_workers,
    "full-stack": full_stack,
    "dispatch": dispatch,
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
        if getattr(measurement, "STAND", "") == "stack":
            with tempfile.TemporaryDirectory() as directory, _stack(Path(directory) / "state") as stack:
                figures += measurement.measure(stack)
            continue
        if getattr(measurement, "STAND", "") == "swarm":
            with tempfile.TemporaryDirectory() as directory:
                figures += _on_a_swarm(measurement, Path(directory) / "state")
            continue
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


@contextmanager
def _stack(state: Path) -> Iterator[Stack]:
    """The full stack as `make stack-up` makes it, with ports and a state of its own."""
    https_port, http_port = free_ports(2)
    settings = {
        "STATE_DIRECTORY": str(state), "HTTPS_PORT": str(https_port), "HTTP_PORT": str(http_port),
        "IMAGES": os.environ.get("IMAGES", "local"), "GPUS": "none", "CPU_SLOTS": "2",
    }  # fmt: skip

    def setup(command: str, **more: str) -> None:
        words = [sys.executable, "-m", "setup", command]
        subprocess.run(words, check=True, stdout=sys.stderr, env={**os.environ, **settings, **more})

    try:
        setup("stack-up")
        stack = Stack(state)
        stack.chosen = Chosen(parse(stack.places.stack_settings.read_text()))
        yield stack
    finally:
        setup("stack-down", PURGE="1")


def _on_a_swarm(measurement: Any, state: Path) -> list[Figure]:
    """The figures of a stack on several machines of our own; the first is the home, without a consumer."""
    swarm = SwarmStack(state, models=measurement.MODELS, **measurement.SETTINGS)
    try:
        for _ in range(1 + measurement.MACHINES):
            swarm.add()
        swarm.begin()
        swarm.label(swarm.home, "off")
        for node in swarm.machines[1:]:
            swarm.join(node)
        figures: list[Figure] = measurement.measure(swarm)
        return figures
    finally:
        swarm.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
