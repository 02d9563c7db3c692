"""Find the container engine that this installation uses: ask those that may be here, judge their answers.

`ensure()` is the one way in. Where no engine answers and this machine allows it, `dockerd` installs and
starts one. An engine that cannot see our directories (a remote one, or one in a virtual machine that does not
share them) is found out by `mount_probe`, and refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import docker
from docker.errors import DockerException
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException

from setup.console import SetupError, detail
from setup.engine import dockerd, mount_probe
from setup.host.machine import Machine
from setup.places import Places

MINIMUM_API = (1, 41)
ASK_SECONDS = 5


@dataclass(frozen=True)
class Answer:
    """What one address said: an engine's API version, or why there was no answer."""

    host: str
    api_version: str | None = None
    engine_version: str = ""
    error: str = ""


class Step(StrEnum):
    """What to do next about the engine."""

    USE = "use"
    START = "start"
    INSTALL = "install"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """The next step, with the engine to use or the sentence to show."""

    step: Step
    answer: Answer | None = None
    sentence: str = ""


def candidates(environment: Mapping[str, str], home: Path, context_host: str | None) -> list[str]:
    """Addresses worth asking, best first. A `DOCKER_HOST` that is set is the only one."""
    if environment.get("DOCKER_HOST"):
        return [environment["DOCKER_HOST"]]
    runtime = environment.get("XDG_RUNTIME_DIR")
    possible = [
        context_host,
        "unix:///var/run/docker.sock",
        f"unix://{runtime}/docker.sock" if runtime else None,
        f"unix://{home}/.docker/run/docker.sock",
    ]
    return list(dict.fromkeys(host for host in possible if host))


def decide(answers: list[Answer], machine: Machine, *, has_dockerd: bool, host_is_set: bool) -> Decision:
    """Which engine to use, or what to do so that there is one."""
    for answer in answers:
        if answer.api_version and version_numbers(answer.api_version) >= MINIMUM_API:
            return Decision(Step.USE, answer)
    refusal = _refusal(answers, host_is_set=host_is_set)
    if refusal:
        return Decision(Step.REFUSE, sentence=refusal)
    if machine.system == "Linux" and machine.is_root and has_dockerd:
        return Decision(Step.START)
    if machine.system == "Linux" and machine.can_install:
        return Decision(Step.INSTALL)
    return Decision(Step.REFUSE, sentence=_how_to_get_one(machine, has_dockerd=has_dockerd))


def _refusal(answers: list[Answer], *, host_is_set: bool) -> str:
    """Why one of these engines, though unusable, must not be passed over; empty when there is none."""
    for answer in answers:
        if answer.api_version:
            return (
                f"The engine at {answer.host} speaks API {answer.api_version}; at least 1.41 (Docker 20.10) "
                "is needed. Update it and run this again."
            )
        if host_is_set:
            return (
                f"DOCKER_HOST is {answer.host}, but no engine answers there ({answer.error}). "
                "Start that engine, or unset DOCKER_HOST."
            )
        if "permission denied" in answer.error.lower():
            return (
                f"There is an engine at {answer.host}, but this user may not use it. Join the group docker "
                "(sudo usermod -aG docker $USER, then log in again), or run this as root."
            )
    return ""


def _how_to_get_one(machine: Machine, *, has_dockerd: bool) -> str:
    if machine.system != "Linux":
        how = "Start Docker Desktop (or Colima, or OrbStack)"
    elif has_dockerd:
        how = "Docker is installed: start it (sudo systemctl start docker)"
    elif machine.distribution in {"debian", "ubuntu"}:
        how = "Install one (sudo apt-get install docker.io)"
    else:
        how = "Install Docker 20.10 or newer, start it"
    return f"No container engine answers here. {how} and run this again."


def version_numbers(version: str) -> tuple[int, ...]:
    """`"1.41"` as numbers that compare."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def connect(host: str, timeout_seconds: int = 60) -> docker.DockerClient:
    """A client of the engine at ``host``; TLS settings come from the usual Docker variables."""
    settings = kwargs_from_env() | {"base_url": host}
    return docker.DockerClient(version="auto", timeout=timeout_seconds, **settings)


def ask(host: str) -> Answer:
    """Ask one address whether an engine is there; never raises."""
    try:
        client = connect(host, ASK_SECONDS)
        try:
            version = client.version()
        finally:
            client.close()
    except (DockerException, RequestException, OSError, ValueError) as error:
        return Answer(host, error=str(error))
    return Answer(host, api_version=version["ApiVersion"], engine_version=version["Version"])


def ensure(places: Places, machine: Machine, environment: Mapping[str, str]) -> str:
    """The address of a working engine that sees our directories; installs or starts one where it may."""
    hosts = candidates(environment, Path.home(), _context_host())
    host_is_set = bool(environment.get("DOCKER_HOST"))
    found = _decide_now(hosts, machine, host_is_set=host_is_set)
    if found.step is Step.INSTALL:
        try:
            dockerd.install(machine)
        finally:
            # The package starts the engine itself where there is an init system, even after Ctrl-C.
            dockerd.remember_packaged_start(places, machine)
        found = _decide_now(hosts, machine, host_is_set=host_is_set)
    if found.step in {Step.START, Step.INSTALL}:
        host = dockerd.start(places, machine, lambda host: ask(host).api_version is not None)
        found = decide([ask(host)], machine, has_dockerd=True, host_is_set=True)
    if found.step is not Step.USE or found.answer is None:
        raise SetupError(found.sentence)
    detail(f"container engine {found.answer.engine_version} at {found.answer.host}")
    client = connect(found.answer.host)
    try:
        mount_probe.require_sight(client, places.consumer)
    finally:
        client.close()
    return found.answer.host


def _decide_now(hosts: list[str], machine: Machine, *, host_is_set: bool) -> Decision:
    return decide(
        [ask(host) for host in hosts], machine, has_dockerd=dockerd.is_installed(), host_is_set=host_is_set
    )


def _context_host() -> str | None:
    """The address that `docker context use` chose, if any."""
    try:
        context = docker.ContextAPI.get_current_context()
        return context.Host if context is not None else None
    except (DockerException, OSError, ValueError, KeyError):
        # A broken context file is no reason to stop: the usual addresses are asked all the same.
        return None
