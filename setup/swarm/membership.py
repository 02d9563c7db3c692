"""This engine's part in a Swarm, and the stack that was deployed from here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.engine import engine
from setup.host import machine
from setup.host.machine import Machine
from setup.places import Places
from setup.swarm import settings
from setup.swarm.settings import SwarmChosen


@dataclass(frozen=True)
class Membership:
    """What an engine says about the Swarm that it is in."""

    state: str  # inactive, pending, active, error, locked
    manager: bool
    node_id: str
    address: str

    @property
    def active(self) -> bool:
        """Whether it is in one."""
        return self.state != "inactive"

    def join_line(self, client: docker.DockerClient) -> str:
        """What to type on a machine that shall join as a worker; it holds a secret."""
        token = client.swarm.attrs["JoinTokens"]["Worker"]
        return f"docker swarm join --token {token} {self.address}:{settings.PORT}"


def look(client: docker.DockerClient) -> Membership:
    """Ask the engine."""
    try:
        said = client.info()["Swarm"]
        if said.get("ControlAvailable"):
            client.swarm.reload()
    except (DockerException, RequestException) as error:
        raise SetupError(f"The engine does not say whether it is in a Swarm: {error}") from error
    return Membership(
        state=said.get("LocalNodeState", "inactive"),
        manager=bool(said.get("ControlAvailable")),
        node_id=said.get("NodeID", ""),
        address=said.get("NodeAddr", ""),
    )


@contextmanager
def reached(places: Places) -> Iterator[tuple[docker.DockerClient, str, Machine]]:
    """This machine's engine: a client, its address, and the machine; the client is closed in the end."""
    places.make()
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    client = engine.connect(host)
    try:
        yield client, host, this_machine
    finally:
        client.close()


def recall(places: Places) -> SwarmChosen | None:
    """The settings of the stack that was deployed last; None when there is none."""
    try:
        return SwarmChosen(settings.parse(places.swarm_settings.read_text()))
    except FileNotFoundError:
        return None


def recalled(places: Places) -> SwarmChosen:
    """As ``recall``; raises ``SetupError`` when there is none."""
    chosen = recall(places)
    if chosen is None:
        raise SetupError("There is no stack on a Swarm here; `make swarm-init` deploys one.")
    return chosen


def require_none(places: Places) -> None:
    """Raise ``SetupError`` where the stack runs on a Swarm: its one-machine commands would take its data."""
    if places.swarm_settings.exists():
        raise SetupError(
            "This stack runs on a Swarm: `make swarm-init` updates it, `make swarm-status` says how it is, "
            "`make swarm-leave` ends it."
        )
