"""A slot's holder: a container that does nothing but own an empty network namespace, which models join.

Making a network namespace takes the engine some 70 ms, joining one nothing: so it is made before there is a
task. The slot enters between tasks. One model at a time is in it, and all it finds there is a loopback.
"""

from __future__ import annotations

from typing import Any

from consumer.node.pause_image import ensure_pause_image
from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import EngineError
from consumer.outside.labels import Owner


class Holder:
    """The holder container of one slot."""

    def __init__(self, engine: Engine, owner: Owner) -> None:
        self._engine = engine
        self._owner = owner
        self._name = owner.holder_name

    def ensure_running(self) -> str:
        """The id of the running holder, made anew when it has gone or stopped."""
        found = self._engine.find_container(self._name)
        if found is not None and not _marks(self._owner).items() <= dict(found.labels).items():
            raise EngineError(
                f"A container named {self._name} exists that is not ours; remove it with docker rm -f."
            )
        if found is not None and found.running:
            return found.container_id
        if found is not None:
            self._engine.remove_container(found.container_id)
        image = ensure_pause_image(self._engine)
        container_id = self._engine.create_container(holder_body(image, self._owner), self._name)
        self._engine.start_container(container_id)
        return container_id

    def remove(self) -> None:
        """Remove it; its namespace lives on for as long as a model is in it."""
        self._engine.remove_container(self._name)


def holder_body(image: str, owner: Owner) -> dict[str, Any]:
    """How the holder is created: with less of everything than any model."""
    return {
        "Image": image,
        "User": "65532:65532",
        # It has no ear for SIGTERM: an engine that ends or begins would wait ten seconds for it.
        "StopSignal": "SIGKILL",
        "Labels": _marks(owner),
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "CgroupnsMode": "private",
            "PidsLimit": 4,
            "Memory": 16 * 1024**2,
            "MemorySwap": 16 * 1024**2,
            # It holds the namespace of running models, so it goes after them when memory runs out.
            "OomScoreAdj": 0,
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }


def _marks(owner: Owner) -> dict[str, str]:
    return owner.labels() | {labels.ROLE: labels.ROLE_HOLDER}
