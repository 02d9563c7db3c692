"""The labels and names by which we recognise what is ours on an engine that we share with others.

Whoever makes or looks for a container, volume or network enters here. Nothing without our installation's
label is ever touched, and no container whose name is not the one that we would have given it: an image may
bring any labels, and its containers inherit them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "org.inferenceserver."
INSTALLATION, NODE, SLOT = PREFIX + "installation", PREFIX + "node", PREFIX + "slot"
TASK, ATTEMPT, TOKEN = PREFIX + "task", PREFIX + "attempt", PREFIX + "token"
# The id of the request that brought the task, for people who follow it through the logs.
REQUEST = PREFIX + "request"
# Which workspace (a directory of ours) a container or volume belongs to.
WORKSPACE = PREFIX + "workspace"
# What a thing is there for: one of the values below.
ROLE = PREFIX + "role"
ROLE_MODEL, ROLE_HOLDER, ROLE_CONTENT, ROLE_PROBE = "model", "holder", "content", "probe"
ROLE_NETWORK = "network"

# A workspace's id, which is all of a name that somebody else could choose.
WORKSPACE_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose a thing is: an installation's slot on a node."""

    installation: str
    node: str
    slot: str

    def labels(self) -> dict[str, str]:
        """What everything of this slot carries."""
        return {INSTALLATION: self.installation, NODE: self.node, SLOT: self.slot}

    def shared_labels(self) -> dict[str, str]:
        """What everything carries that the slots of a node share; no slot's clean-up looks at those."""
        return {INSTALLATION: self.installation, NODE: self.node}

    @property
    def name(self) -> str:
        """A prefix for names on the engine, unique to this slot."""
        return f"inferenceserver-{_digest(self.installation, self.node, self.slot)}-{self.slot}"

    @property
    def shared_name(self) -> str:
        """A prefix for names of what the slots of a node share."""
        return f"inferenceserver-{_digest(self.installation, self.node)}"

    @property
    def holder_name(self) -> str:
        """The slot's holder container."""
        return f"{self.name}-holder"


def workspace_name(workspace_id: str) -> str:
    """The container of a workspace, and how the names of its volumes begin."""
    return f"inferenceserver-{workspace_id}"


def is_ours(given_name: str, carried: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether the container or volume of this name was made by us for whom ``wanted`` says.

    It must carry the labels ``wanted`` and have exactly the name that goes with its other labels.
    """
    if not wanted.items() <= carried.items():
        return False
    owner = Owner(
        installation=carried.get(INSTALLATION, ""), node=carried.get(NODE, ""), slot=carried.get(SLOT, "")
    )
    workspace_id = carried.get(WORKSPACE, "")
    match carried.get(ROLE):
        case "model":
            own = workspace_name(workspace_id)
            known = WORKSPACE_ID.fullmatch(workspace_id) is not None
            return known and (given_name == own or given_name.startswith(f"{own}-"))
        case "holder":
            return given_name == owner.holder_name
        case "probe":
            return given_name.startswith(f"{owner.name}-probe-")
        case "content" | "network":
            return given_name.startswith(f"{owner.shared_name}-")
    return False


def _digest(*names: str) -> str:
    """A short name for several: put side by side, "a" and "b-c" would look like "a-b" and "c"."""
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:12]
