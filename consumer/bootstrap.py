"""Builds a slot's real tools from the settings; tests build the same with an engine or a server of their own.

``__main__`` enters. Nothing is built at import.
"""

from __future__ import annotations

import time
from pathlib import Path

from consumer.node.contents import Contents
from consumer.node.holder import Holder
from consumer.node.network import ModelNetwork
from consumer.node.record import RecordFile
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.node.station import Station
from consumer.node.workspace import Workspaces
from consumer.outside.docker_engine import DockerEngine
from consumer.outside.engine import Engine
from consumer.outside.errors import SettingsError
from consumer.outside.labels import Owner
from consumer.outside.server import Server

# The private API makes the key file at its first start, perhaps a moment after us.
_KEY_PATIENCE_SECONDS = 60.0


def build_station(
    settings: Settings, slot: Slot, *, engine: Engine | None = None, server: Server | None = None
) -> Station:
    """All that a slot works with."""
    owner = Owner(installation=settings.installation, node=settings.node, slot=slot.name)
    engine = engine or DockerEngine(settings.docker_host)
    directory = slot_directory(settings, slot)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Station(
        settings=settings,
        slot=slot,
        owner=owner,
        engine=engine,
        server=server or Server(settings.private_api_url, read_key(settings.worker_key_file)),
        holder=Holder(engine, owner),
        network=ModelNetwork(engine, owner),
        workspaces=Workspaces(engine, directory / "work", owner),
        contents=Contents(engine, settings.directory / "contents", owner),
        record=RecordFile(directory / "attempt.json"),
    )


def slot_directory(settings: Settings, slot: Slot) -> Path:
    """Where a slot keeps its record, its lock and its workspaces."""
    return settings.directory / "slots" / slot.name


def read_key(path: Path, patience_seconds: float = _KEY_PATIENCE_SECONDS) -> str:
    """The worker key; waits for the file to appear."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            key = path.read_text().strip()
        except FileNotFoundError:
            key = ""
        except OSError as error:
            raise SettingsError(f"WORKER_KEY_FILE cannot be read: {error}.") from error
        if key:
            return key
        if time.monotonic() >= deadline:
            raise SettingsError(f"WORKER_KEY_FILE: there is no key in {path}.")
        time.sleep(0.1)
