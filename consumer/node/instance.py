"""Who this node is, whatever it is called: a random id, made once for each consumer directory.

The parent process enters at start. A server that hears two instances under one name knows that two machines
were given the same one.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

_NAME = "instance"
_INSTANCE = re.compile(r"[0-9a-f]{32}")


def instance_of(directory: Path) -> str:
    """The id that is kept in ``directory``, made where there is none; raises ``OSError``."""
    path = directory / _NAME
    try:
        kept = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        kept = ""
    if _INSTANCE.fullmatch(kept):
        return kept
    made = secrets.token_hex(16)
    draft = path.with_suffix(".draft")
    draft.write_text(f"{made}\n")
    # In one step: a power cut leaves the old one or the new one, and never half of it.
    draft.replace(path)
    return made
