"""What every attempt of a slot works with, built once by ``bootstrap``, and what it knows of this machine.

Attempts enter; it holds values and tools, and decides nothing.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from consumer.node.contents import Contents
from consumer.node.holder import Holder
from consumer.node.intake import Intake
from consumer.node.network import ModelNetwork
from consumer.node.pulled_images import PulledImages
from consumer.node.record import RecordFile
from consumer.node.room import Room
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.node.workspace import Workspaces
from consumer.outside.calls import Calls
from consumer.outside.engine import Engine
from consumer.outside.labels import Owner

# Plenty for a program with several data loaders, and below the hard limit of most engines.
OPEN_FILES = 16384


@dataclass(frozen=True, kw_only=True)
class Station:
    """A slot's tools."""

    settings: Settings
    slot: Slot
    owner: Owner
    engine: Engine
    server: Calls
    holder: Holder
    network: ModelNetwork
    workspaces: Workspaces
    contents: Contents
    images: PulledImages
    room: Room
    record: RecordFile
    intake: Intake


def forced_user() -> str | None:
    """As whom models must run where we are not root: as us, for we could not remove others' files."""
    return None if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"


def open_files() -> int:
    """How many files a model may open; our own hard limit stands for the engine's, which it does not tell."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
