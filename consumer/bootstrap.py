"""Builds a slot's real tools from the settings; tests build the same with an engine or a server of their own.

``__main__`` enters. Nothing is built at import.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from consumer.node.contents import Contents
from consumer.node.credentials import RegistryCredentials
from consumer.node.gpus import Probe, ask_machine, chosen_gpus, find_gpus
from consumer.node.holder import Holder
from consumer.node.instance import instance_of
from consumer.node.intake import Intake
from consumer.node.network import ModelNetwork
from consumer.node.pulled_images import PulledImages
from consumer.node.record import RecordFile
from consumer.node.report import Survey
from consumer.node.reporter import Reporter
from consumer.node.residence import HostPaths, find_on_host, own_image
from consumer.node.room import Room
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.node.station import Station
from consumer.node.stock import Stock
from consumer.node.workspace import Workspaces
from consumer.outside.calls import Calls
from consumer.outside.docker_engine import Credentials, DockerEngine, no_credentials
from consumer.outside.engine import Engine
from consumer.outside.errors import EngineAwayError, SettingsError
from consumer.outside.labels import Owner
from consumer.outside.server import Server
from consumer.outside.worker_key import WorkerKey
from contracts.nodes import GpuFacts, NodeOrders

_log = logging.getLogger(__name__)

# How often a node says for what it waits, and how often it looks.
_SAY_SECONDS, _LOOK_SECONDS = 15.0, 0.5
# The private API makes the key file at its first start, perhaps a moment after us.
_KEY_PATIENCE_SECONDS = 60.0


def build_station(
    settings: Settings, slot: Slot, *, engine: Engine | None = None, server: Calls | None = None
) -> Station:
    """All that a slot works with."""
    owner = Owner(installation=settings.installation, node=settings.node, slot=slot.name)
    engine = engine or DockerEngine(settings.docker_host, credentials_of(settings))
    directory = slot_directory(settings, slot)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    room = build_room(settings, engine)
    return Station(
        settings=settings,
        slot=slot,
        owner=owner,
        engine=engine,
        server=server or build_server(settings),
        holder=Holder(engine, owner),
        network=ModelNetwork(engine, owner),
        workspaces=Workspaces(engine, directory / "work", owner, host_paths(settings)),
        contents=room.contents,
        images=room.images,
        room=room,
        record=RecordFile(directory / "attempt.json"),
        intake=Intake(settings.directory),
    )


def build_room(settings: Settings, engine: Engine) -> Room:
    """The disks of the node, with what is cached there."""
    # What the slots share bears no slot's name.
    owner = Owner(installation=settings.installation, node=settings.node, slot="")
    places = host_paths(settings)
    contents = Contents(engine, settings.directory / "contents", owner, places)
    images = PulledImages(engine, settings.directory / "images")
    return Room(settings, engine, places, contents, images)


def build_server(settings: Settings, patience_seconds: float = _KEY_PATIENCE_SECONDS) -> Server:
    """The private API, as a worker with our key; waits so long for the key to be there."""
    key = WorkerKey(read_key(settings.worker_key_file, patience_seconds), settings.worker_key_file)
    return Server(settings.private_api_url, key, ca=settings.server_ca, proxy=settings.server_proxy)


def credentials_of(settings: Settings) -> Credentials:
    """What registries are told."""
    file = settings.registry_credentials_file
    return no_credentials if file is None else RegistryCredentials(file)


def gpus_of_node(settings: Settings, engine: Engine) -> tuple[GpuFacts, ...]:
    """The GPUs that the slots are made for; raises ``EngineAwayError``."""
    if settings.gpus == ():
        return ()
    image = settings.gpu_probe_image or own_image(engine, settings.directory)
    owner = Owner(installation=settings.installation, node=settings.node, slot="check")
    found = find_gpus(Probe(engine, owner, image) if image else ask_machine)
    return chosen_gpus(settings.gpus, found)


def build_reporter(
    settings: Settings, engine: Engine, room: Room, slots: Sequence[Slot], gpus: Sequence[GpuFacts]
) -> tuple[Reporter, Stock]:
    """What tells the server of this node, and what has things here that the server wants here."""

    def reach() -> Server:
        # Neither may hold up the other, nor the node's end, for a key that is not there yet.
        return build_server(settings, patience_seconds=0.0)

    survey = Survey(settings, engine, room, slots, gpus, instance_of(settings.directory))
    stock = Stock(settings, engine, room, reach)

    def heed(orders: NodeOrders) -> None:
        survey.note_needed([wanted.image.tag for wanted in orders.wanted])
        stock.want(orders.wanted)

    return Reporter(settings.node, reach, survey, Intake(settings.directory), heed), stock


def reach_engine(settings: Settings) -> DockerEngine:
    """The engine, once it answers; raises ``EngineAwayError`` when that takes longer than allowed.

    Raises ``SettingsError`` where the credentials for its pulls cannot be read.
    """
    credentials = credentials_of(settings)
    if isinstance(credentials, RegistryCredentials):
        # Here alone: a slot that begins while the file is exchanged goes on without.
        credentials.check()
    began = time.monotonic()
    say_at = began
    while True:
        try:
            return DockerEngine(settings.docker_host, credentials)
        except EngineAwayError as error:
            now = time.monotonic()
            waited = now - began
            if waited >= settings.start_patience_seconds:
                raise EngineAwayError(
                    f"No container engine answered within {waited:.0f} s: start it, or name another with "
                    f"DOCKER_HOST ({error})."
                ) from error
            if now >= say_at:
                said = {"action": "engine_awaited"}
                _log.warning("waiting for the container engine (%.0f s): %s", waited, error, extra=said)
                say_at = now + _SAY_SECONDS
            time.sleep(_LOOK_SECONDS)


def settled(environment: Mapping[str, str], engine: Engine) -> dict[str, str]:
    """``environment`` with all that follows from where we live: in a container or not.

    In one, the defaults of INSTALLATION and NODE_NAME would change with each container, or be the same for
    two. Raises ``SettingsError`` and ``EngineError``.
    """
    settings = Settings.from_environment(environment)
    given = {name: value for name, value in environment.items() if value.strip()}
    if settings.host_directory is None:
        on_host = find_on_host(engine, settings.directory)
        if on_host == PurePosixPath(settings.directory):
            return given
        given["CONSUMER_HOST_DIRECTORY"] = str(on_host)
    return {"NODE_NAME": engine.host().name} | given


def host_paths(settings: Settings) -> HostPaths:
    """What the engine calls the paths in our directory."""
    on_host = settings.host_directory or PurePosixPath(settings.directory)
    return HostPaths(ours=settings.directory, on_host=on_host)


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
