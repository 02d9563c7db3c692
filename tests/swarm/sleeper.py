"""A machine that stands still while other tests run; conftest.py makes it, test_machines_fail.py looks."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from tests.rig.nodes import Node
from tests.rig.swarm import SwarmStack

SITE = "asleep"


class Sleeper:
    """A fourth machine, frozen in the middle of ``task``. Meanwhile its engine answers nobody, and so it is
    none of the Swarm's ``machines``.
    """

    def __init__(self, swarm: SwarmStack) -> None:
        self._swarm = swarm
        # What its engine is labelled with has the task begin there.
        self.node: Node = swarm.add(flags=["--label", f"site={SITE}"])
        self.task: dict[str, Any] = {}
        self._since = self._frozen_at = 0.0
        self._is_asleep = False

    def fall_asleep(self, task: dict[str, Any]) -> None:
        """Freeze it, in the middle of ``task``."""
        self.task, self._is_asleep = task, True
        self._since, self._frozen_at = time.monotonic(), time.time()
        self.node.freeze()
        self._swarm.machines.remove(self.node)

    def seconds_until(self, moment: str) -> float:
        """From when it was frozen until a time that the server tells; all clocks here are one."""
        return datetime.fromisoformat(moment).timestamp() - self._frozen_at

    def asleep_seconds(self) -> float:
        """How long ago it was frozen."""
        return time.monotonic() - self._since

    def wake(self) -> None:
        """Let it go on."""
        if self._is_asleep:
            self.node.thaw()
            self._swarm.machines.append(self.node)
            self._is_asleep = False

    def leave(self) -> None:
        """Out of the Swarm, and gone."""
        self.wake()
        node_id = self._swarm.id_of(self.node)
        self._swarm.make("swarm-leave", self.node, PURGE="1")
        self._swarm.home.run("docker", "node", "rm", "--force", node_id)
        self._swarm.machines.remove(self.node)
        self.node.close()
