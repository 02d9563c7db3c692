"""The labels by which we recognise what is ours on an engine that we share with others.

Whoever makes or looks for a container or volume enters here. Nothing without our installation's label is
ever touched.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "org.inferenceserver."
INSTALLATION, NODE, SLOT = PREFIX + "installation", PREFIX + "node", PREFIX + "slot"
TASK, ATTEMPT, TOKEN = PREFIX + "task", PREFIX + "attempt", PREFIX + "token"
# Which workspace (a directory of ours) a container or volume belongs to.
WORKSPACE = PREFIX + "workspace"
# What a thing is there for: one of the values below.
ROLE = PREFIX + "role"
ROLE_MODEL, ROLE_HOLDER, ROLE_CONTENT, ROLE_PROBE = "model", "holder", "content", "probe"


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
        return f"inferenceserver-{self.installation}-{self.node}-{self.slot}"
