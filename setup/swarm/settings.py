"""What the stack on a Swarm is told beside the full stack's own settings, kept in `.state/swarm.env`. Pure.

A variable of the environment counts before what was remembered, and that before the default. Everything that
swarm/stack.yaml has a variable for is in the file, so that `docker stack deploy` can be run by hand with it.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from setup.console import SetupError
from setup.stack import stack_settings
from setup.stack.stack_settings import Chosen

# What a consumer needs beside the time in which its tasks may end: handing back, removing containers.
CLEANING_SECONDS = 40
DEFAULT_DRAIN_SECONDS = 20.0
DEFAULT_MTU = "1500"
# The control plane's own port; a Swarm has no other.
PORT = 2377
# What runs on machines that join; all else runs where `make swarm-init` was called.
ON_EVERY_MACHINE = "CONSUMER_IMAGE"
OF_SWARM = ("ADVERTISE", "ADDRESS_POOL", "REGISTRY")


class Encryption(StrEnum):
    """Whether what goes from machine to machine is encrypted by the kernel."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True)
class SwarmChosen:
    """The settings of one stack on a Swarm. ``values`` has all of swarm/stack.yaml's variables, and ours."""

    values: Mapping[str, str]

    @property
    def stack(self) -> str:
        """The stack's name, in the names of its services, networks, volumes and secrets."""
        return self.values["STACK"]

    @property
    def encryption(self) -> Encryption:
        """Whether the networks are encrypted."""
        return Encryption(self.values["SWARM_ENCRYPTION"])

    @property
    def registry(self) -> str:
        """Where machines get images: host, port and perhaps a path; empty: each has them already."""
        return self.values.get("REGISTRY", "")

    @property
    def own(self) -> Chosen:
        """The settings of the stack itself."""
        return Chosen(self.values)


def choose(environment: Mapping[str, str], remembered: Mapping[str, str], own: Chosen) -> SwarmChosen:
    """All settings but the images' digests and the secrets' version; raises ``SetupError`` that names the
    variable at fault."""

    def pick(name: str, default: str = "") -> str:
        return environment.get(name) or remembered.get(name) or default

    values = {
        **own.values,
        "STACK": own.project,
        "SWARM_ENCRYPTION": pick("SWARM_ENCRYPTION", Encryption.ON),
        "NETWORK_MTU": pick("NETWORK_MTU", DEFAULT_MTU),
        **{name: text for name in OF_SWARM if (text := pick(name))},
    }
    if values["SWARM_ENCRYPTION"] not in set(Encryption):
        raise SetupError(f"SWARM_ENCRYPTION must be on or off, not {values['SWARM_ENCRYPTION']!r}.")
    if not re.fullmatch(r"[0-9]{3,5}", values["NETWORK_MTU"]):
        raise SetupError(f"NETWORK_MTU must be a number such as 1500, not {values['NETWORK_MTU']!r}.")
    if address := values.get("ADVERTISE"):
        _check_address(address)
    if pool := values.get("ADDRESS_POOL"):
        _check_pool(pool)
    if registry := values.get("REGISTRY"):
        _check_registry(registry)
    published = environment.get("PUBLISH_ADDRESS", "")
    if published not in {"", "0.0.0.0"}:  # noqa: S104 - Compared with, not bound.
        raise SetupError(
            "PUBLISH_ADDRESS cannot be chosen on a Swarm, which publishes a port on every address of its "
            "machine; leave it out, and close what must be closed with the machine's firewall."
        )
    # Wherever it is asked whether the stack works, it is asked on this machine.
    values["PUBLISH_ADDRESS"] = "127.0.0.1"
    uid, gid = own.store_user
    values |= {"STORE_UID": str(uid), "STORE_GID": str(gid)}
    values["CONSUMER_STOP_SECONDS"] = str(consumer_stop_seconds(own))
    return SwarmChosen(values)


def consumer_stop_seconds(own: Chosen) -> int:
    """After how long a consumer that was told to stop is killed: longer than it lets its tasks run on."""
    text = own.values.get("DRAIN_SECONDS", "")
    try:
        drain_seconds = float(text) if text else DEFAULT_DRAIN_SECONDS
    except ValueError:
        raise SetupError(f"DRAIN_SECONDS must be a number, not {text!r}.") from None
    if not 0 <= drain_seconds <= 86400:
        raise SetupError(f"DRAIN_SECONDS must lie between 0 and 86400, not {text}.")
    return math.ceil(drain_seconds) + CLEANING_SECONDS


def _check_address(text: str) -> None:
    try:
        unspecified = ipaddress.ip_address(text).is_unspecified
    except ValueError:
        unspecified = True
    if unspecified:
        raise SetupError(
            "ADVERTISE must be the address at which other machines reach this one, such as 192.168.1.10, "
            f"not {text!r}."
        )


def _check_pool(text: str) -> None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise SetupError(f"ADDRESS_POOL must be a network such as 10.200.0.0/16, not {text!r}.") from error
    if network.version != 4 or network.prefixlen > 20:
        raise SetupError(f"ADDRESS_POOL must be an IPv4 network of /20 or larger, not {text!r}.")


def _check_registry(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*", text):
        raise SetupError(
            "REGISTRY must be a registry's host, port and perhaps path, such as registry.lan:5000/group, "
            f"not {text!r}."
        )


def deployed(chosen: SwarmChosen, pins: Mapping[str, str], secrets_version: str) -> SwarmChosen:
    """The settings with what is found out last: what each image is, and which secrets there are."""
    return SwarmChosen({**chosen.values, **pins, "SECRETS_VERSION": secrets_version})


def render(chosen: SwarmChosen) -> str:
    """The text of swarm.env, as a shell and we read it."""
    lines = [
        "# Made by `make swarm-init`, which reads it again; a variable of its environment replaces a line."
    ]
    pairs = sorted(chosen.values.items())
    return "\n".join([*lines, *(f"{name}='{value}'" for name, value in pairs)]) + "\n"


def parse(text: str) -> dict[str, str]:
    """The settings in the text of a swarm.env."""
    return {name: value.strip("'") for name, value in stack_settings.parse(text).items()}
