"""Keeping the slots' processes alive."""

from __future__ import annotations

import subprocess
import sys
import time

from consumer.node.slots import Slot
from consumer.supervisor import Child


def test_a_dead_child_is_started_again_after_a_pause() -> None:
    # Given a slot whose process ends at once
    lives: list[subprocess.Popen[bytes]] = []

    def start(_slot: Slot) -> subprocess.Popen[bytes]:
        lives.append(subprocess.Popen([sys.executable, "-c", ""]))
        return lives[-1]

    child = Child(Slot(name="cpu-0"), start)
    # When it is looked after
    deadline = time.monotonic() + 10
    while len(lives) < 3:
        assert time.monotonic() < deadline
        child.keep_alive()
        if len(lives) == 1:
            lives[0].wait()
            child.keep_alive()
            # Then it is not started again in the same moment
            assert len(lives) == 1
        time.sleep(0.01)
    # And it is started again after all
    child.wait(time.monotonic() + 10)


def test_a_child_that_does_not_end_in_time_is_killed() -> None:
    def start(_slot: Slot) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    child = Child(Slot(name="cpu-0"), start)
    child.keep_alive()
    began = time.monotonic()
    child.wait(began)
    assert time.monotonic() - began < 30
