"""The proxy's management on a Swarm: in a container of its own beside the proxy, on the stack's home.

The proxy's admin API listens inside its own container only, so whoever manages it joins that container's
network.
"""

from __future__ import annotations

import os
import shlex
from typing import NoReturn

import docker
from docker.errors import ContainerError, DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.engine import engine
from setup.host import machine
from setup.places import Places
from setup.stack import stack_watch
from setup.stack.stack_settings import SERVICE_USER
from setup.swarm.encryption import error_words
from setup.swarm.membership import recalled
from setup.swarm.settings import SwarmChosen

_STATE = "/var/lib/proxy"


def render(client: docker.DockerClient, chosen: SwarmChosen) -> None:
    """Write what Caddy starts with, from the base configuration, the settings and the recorded domains."""
    try:
        client.containers.run(
            chosen.values["PROXY_ADMIN_IMAGE"],
            ["render"],
            remove=True,
            network_mode="none",
            user=SERVICE_USER,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            tmpfs={"/tmp": "size=64m,mode=1777"},  # noqa: S108 - The container's own.
            environment=environment(chosen),
            volumes={f"{chosen.stack}_proxy-state": {"bind": _STATE, "mode": "rw"}},
        )
    except ContainerError as error:
        words = error_words(error)
        raise SetupError(f"The proxy's configuration could not be written: {words[-400:]}") from error
    except (DockerException, RequestException) as error:
        raise SetupError(f"The proxy's configuration could not be written: {error}") from error


def environment(chosen: SwarmChosen) -> dict[str, str]:
    """The settings of the proxy and its management."""
    return {
        "HTTPS_PORT": chosen.values["HTTPS_PORT"],
        "PROXY_ADMIN_API": "127.0.0.1:2019",
        "PUBLIC_API_UPSTREAMS": "public_api:8080",
        "PROXY_ACME_CA": chosen.values.get("PROXY_ACME_CA", ""),
    }


def manage(places: Places) -> NoReturn:
    """Become a command of the proxy's management, with the words of ARGS and our input and output."""
    chosen = recalled(places)
    host = engine.ensure(places, machine.look(), os.environ)
    client = engine.connect(host)
    try:
        found = stack_watch.containers(client, chosen.stack, "proxy")
    finally:
        client.close()
    if not found or found[0].status != "running":
        raise SetupError("The proxy does not run on this machine; `make swarm-status` says how it is.")
    words = shlex.split(os.environ.get("ARGS", "")) or ["--help"]
    settings = [word for name, text in environment(chosen).items() for word in ("--env", f"{name}={text}")]
    command = [
        "docker", "--host", host, "run", "--rm", "--interactive", "--network", f"container:{found[0].id}",
        "--user", SERVICE_USER, "--read-only", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges:true",
        "--tmpfs", "/tmp:size=64m,mode=1777",  # noqa: S108 - The container's own.
        "--volume", f"{chosen.stack}_proxy-state:{_STATE}",
        *settings, chosen.values["PROXY_ADMIN_IMAGE"], *words,
    ]  # fmt: skip
    os.execvp(command[0], command)  # noqa: S606 - Nothing is left to do here.
