"""Whose turn it is among the nodes of a broker: shared by whoever keeps a connection to it. Pure.

One connection after the other enters with how it ended, and learns whether to try the next node at once or
to pause. Nothing here connects, waits or logs.
"""

from __future__ import annotations

import secrets

from contracts.announcements import BrokerAddress, BrokerNode

# A connection that ended sooner after it was ready counts as one that never was: a broker that lets us in and
# throws us out again must not be asked without a pause.
SETTLED_SECONDS = 1.0


class BrokerRound:
    """Goes around the nodes of a broker, for one thread."""

    def __init__(self, address: BrokerAddress, start: int | None = None) -> None:
        self._nodes = address.nodes
        # Everybody begins somewhere else, so that the connections spread over the nodes.
        self._turn = (secrets.randbelow(len(self._nodes)) if start is None else start) % len(self._nodes)
        self._reasons: dict[BrokerNode, str] = {}

    @property
    def node(self) -> BrokerNode:
        """The node to connect to now."""
        return self._nodes[self._turn]

    def ended(self, reason: str, settled_seconds: float) -> str | None:
        """The connection to ``node`` was ready for so long (0: never) and ended; the next node has its turn.

        None when that one is to be tried at once. When all have failed one after the other it is time for a
        pause, and the answer says why they did.
        """
        if settled_seconds >= SETTLED_SECONDS:
            self._reasons.clear()
        self._reasons[self.node] = reason
        self._turn = (self._turn + 1) % len(self._nodes)
        if len(self._reasons) < len(self._nodes):
            return None
        reasons, self._reasons = self._reasons, {}
        if len(set(reasons.values())) == 1:
            return reason
        return "; ".join(f"{node}: {said}" for node, said in reasons.items())
