"""What every attempt of a slot works with, built once by ``bootstrap``, and what it knows of this machine.

Attempts enter; it holds values and tools, and decides nothing.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from consumer.contents import Contents
from consumer.engine import Engine
from consumer.holder import Holder
from consumer.labels import Owner
from consumer.record import RecordFile
from consumer.sandbox import OPEN_FILES
from consumer.server import Server
from consumer.settings import Settings
from consumer.slots import Slot
from consumer.workspace import Workspaces


@dataclass(frozen=True, kw_only=True)
class Station:
    """A slot's tools."""

    settings: Settings
    slot: Slot
    owner: Owner
    engine: Engine
    server: Server
    holder: Holder
    workspaces: Workspaces
    contents: Contents
    record: RecordFile


def forced_user() -> str | None:
    """As whom models must run where we are not root: as us, for we could not remove others' files."""
    return None if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"


def open_files() -> int:
    """How many files a model may open; our own hard limit stands for the engine's, which it does not tell."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
