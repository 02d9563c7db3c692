"""Whether this node takes tasks: a file that the parent process writes and every slot looks at.

It lies in the consumer's directory and stays there when the node restarts: an operator's wish holds although
the server may be away then. What runs is not concerned.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from pathlib import Path


class Closed(StrEnum):
    """Why a node takes none."""

    DRAINING = "an operator drains this node"
    NAME_TAKEN = "another node has this node's name"


class Intake:
    """The node's one way in."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "closed"

    def closed(self) -> Closed | None:
        """Why no task may be taken now; None when one may."""
        try:
            word = self._path.read_text(errors="replace").strip()
        except OSError:
            # Whatever ails the disk, the server hands out nothing that it should not.
            return None
        with suppress(KeyError):
            return Closed[word]
        return None

    def close(self, reason: Closed) -> None:
        """Take nothing more; raises ``OSError``."""
        if self.closed() is not reason:
            draft = self._path.with_suffix(".draft")
            draft.write_text(reason.name)
            draft.replace(self._path)

    def open(self) -> None:
        """Take tasks again; raises ``OSError``."""
        self._path.unlink(missing_ok=True)
