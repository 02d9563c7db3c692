"""The network of models that an admin lets use one: a bridge of ours, on which they do not see one another.

Attempts enter for such a model; the network is made for the first of them and shared by the slots of a node.
A slot that ends removes it, unless another slot's model is on it.
"""

from __future__ import annotations

from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.labels import Owner

# On the engine's own bridge every container may talk to every other one, ours or a stranger's.
_OPTIONS = {"com.docker.network.bridge.enable_icc": "false"}


class ModelNetwork:
    """The models' bridge of one node."""

    def __init__(self, engine: Engine, owner: Owner) -> None:
        self._engine = engine
        self._marks = owner.shared_labels() | {labels.ROLE: labels.ROLE_NETWORK}
        self._name = f"{owner.shared_name}-models"

    def ensure(self) -> str:
        """Its id, made when it is missing; raises ``EngineError``."""
        return self._engine.ensure_network(self._name, self._marks, _OPTIONS)

    def remove(self) -> None:
        """Remove it unless somebody uses it."""
        self._engine.remove_network(self._name)
