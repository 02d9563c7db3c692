"""How handing out tasks scales with machines: three of four slots each, against one of four.

All of them are engines of one real Swarm on this machine, and share its cores. So tasks that only wait say
how well the server hands out; tasks that do nothing take all cores with one machine already, to start their
containers, and several machines cannot be faster. What part of the cores was busy stands beside each rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure
from tests.rig.api import Api
from tests.rig.nodes import Node
from tests.rig.polling import eventually
from tests.rig.swarm import SwarmStack

STAND = "swarm"
SETTINGS = {"CPU_SLOTS": "4"}
MODELS = ("waits", "echo")
MACHINES = 3

_SLOTS = 4
_ROUNDS = 6
# Of tasks that wait: long enough that twelve at once leave cores idle, were they started in turn.
_WAITS_SECONDS = 4
_LEAST = 0.8
_CORES_ARE_BUSY = 0.9
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(swarm: SwarmStack) -> list[Figure]:
    """With one machine first; the others' consumers are kept away meanwhile."""
    user = swarm.caller("user")
    models = {name: swarm.admin.register(name) for name in MODELS}
    files = {"waits": {"seconds.txt": b"%d" % _WAITS_SECONDS}, "echo": {"in.txt": b"in"}}
    first, *others = swarm.machines[1:]
    rates: dict[tuple[str, int], tuple[float, float]] = {}
    for count in (1, MACHINES):
        for node in others:
            swarm.label(node, "off" if count == 1 else "")
        if count == 1:
            for node in others:
                eventually(partial(_has_none, swarm, node), 60, "its consumer is gone")
        swarm.wait_for_consumers(first, *(others if count > 1 else []))
        for name in MODELS:
            # Whatever is made once.
            _rate(user, models[name], files[name], count * _SLOTS, rounds=2)
            rates[name, count] = _rate(user, models[name], files[name], count * _SLOTS, rounds=_ROUNDS)
    return [_figure(name, rates[name, 1], rates[name, MACHINES]) for name in MODELS]


def _has_none(swarm: SwarmStack, node: Node) -> bool:
    return swarm.consumer(node) is None


def _figure(name: str, one: tuple[float, float], several: tuple[float, float]) -> Figure:
    linear = several[0] / one[0] / MACHINES
    # Where one machine's slots take all cores already, more of them on the same cores cannot be faster.
    limited = max(one[1], several[1]) >= _CORES_ARE_BUSY
    what = f"tasks that wait {_WAITS_SECONDS} s" if name == "waits" else "tasks that do nothing"
    return Figure(
        f"{what}, {MACHINES} machines of {_SLOTS} slots, on {os.cpu_count()} cores in all",
        f"{several[0]:.2f}/s, cores {several[1] * 100:.0f} % busy",
        f"{MACHINES} times one machine: {one[0]:.2f}/s, cores {one[1] * 100:.0f} % busy",
        linear,
        "at least 0.8, or the cores are the limit",
        linear >= _LEAST or limited,
    )


def _rate(user: Api, model: str, files: dict[str, bytes], slots: int, rounds: int) -> tuple[float, float]:
    """Tasks per second with every slot busy, and what part of the cores was."""
    tasks = [user.submit(model, files) for _ in range(slots * rounds)]
    user.running(tasks[slots - 1], seconds=60) if model.startswith("waits") else None
    with _busy() as part:
        ends = []
        for task in tasks:
            ended = user.ended(task, seconds=300)
            assert ended["state"] == "succeeded", ended
            ends.append(datetime.fromisoformat(ended["finished_at"]).timestamp())
    ends.sort()
    # Neither while the first are begun nor while the last are ending are all slots busy.
    begin, end = slots - 1, len(ends) - slots
    return (end - begin) / (ends[end] - ends[begin]), part[0]


@contextmanager
def _busy() -> Iterator[list[float]]:
    """Afterwards holds what part of all cores was busy."""
    idle, total = _idle_and_total()
    part = [0.0]
    yield part
    idle_now, total_now = _idle_and_total()
    part[0] = 1 - (idle_now - idle) / max(1, total_now - total)


def _idle_and_total() -> tuple[int, int]:
    # man 5 proc: user nice system idle iowait irq softirq steal.
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)
