"""Watch the containers of one stack until each is healthy, and say which is not, and why.

Enters the engine by compose's labels, so it sees the same whichever compose started them. Judging is pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from setup.console import SetupError, detail
from setup.stack.stack_settings import Chosen

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
STACK_LABEL = "com.docker.stack.namespace"
SWARM_SERVICE_LABEL = "com.docker.swarm.service.name"
# What belongs to every stack; others come with a profile.
SERVICES = ("postgres", "s3", "rabbitmq", "private_api", "public_api", "consumer", "proxy")
# What a broker of three nodes adds.
MORE_BROKERS = ("rabbitmq-2", "rabbitmq-3")
# What ends well before another may start.
ONE_SHOTS = ("proxy-configuration",)
UP_SECONDS = 240
# So often may a service end by itself before we stop waiting for it.
PATIENT_RESTARTS = 4
_SAY_SECONDS = 15.0
_RECOVERY_SECONDS = 20.0


@dataclass(frozen=True)
class Sight:
    """One container as the engine shows it."""

    service: str
    container_id: str
    status: str  # created, running, restarting, paused, exited, dead
    health: str  # starting, healthy, unhealthy; empty where there is no check
    restarts: int
    exit_code: int

    @property
    def ready(self) -> bool:
        """Whether it runs, and is healthy where that can be asked."""
        return self.status == "running" and self.health in {"", "healthy"}

    @property
    def condition(self) -> str:
        """How it is, in a word or two."""
        if self.status == "running":
            return self.health or "running"
        return (
            f"{self.status}, exit code {self.exit_code}"
            if self.status in {"exited", "restarting"}
            else self.status
        )


def look(client: docker.DockerClient, project: str) -> list[Sight]:
    """The project's containers, without those of one-off commands."""
    return [_seen(container) for container in containers(client, project)]


def containers(client: docker.DockerClient, project: str, service: str = "") -> list[Any]:
    """The project's containers on this engine, or one service's, whether compose or a Swarm started them."""
    return composed(client, project, service) or _swarmed(client, project, service)


def composed(client: docker.DockerClient, project: str, service: str = "") -> list[Any]:
    """Those that compose started."""
    labels = [f"{PROJECT_LABEL}={project}", "com.docker.compose.oneoff=False"]
    if service:
        labels.append(f"{SERVICE_LABEL}={service}")
    found = client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
    return list(found)


def _swarmed(client: docker.DockerClient, project: str, service: str) -> list[Any]:
    """Those of a Swarm's stack: the newest of each service, for a Swarm keeps a few that have ended."""
    labels = [f"{STACK_LABEL}={project}"]
    if service:
        labels.append(f"{SWARM_SERVICE_LABEL}={project}_{service}")
    newest: dict[str, Any] = {}
    for container in client.containers.list(all=True, filters={"label": labels}, ignore_removed=True):
        name = container.labels[SWARM_SERVICE_LABEL]
        if name not in newest or container.attrs["Created"] > newest[name].attrs["Created"]:
            newest[name] = container
    return list(newest.values())


def _service_of(labels: Mapping[str, str]) -> str:
    if SERVICE_LABEL in labels:
        return labels[SERVICE_LABEL]
    return labels[SWARM_SERVICE_LABEL].removeprefix(f"{labels[STACK_LABEL]}_")


def _seen(container: Any) -> Sight:
    state = container.attrs["State"]
    return Sight(
        service=_service_of(container.labels),
        container_id=container.id,
        status=state["Status"],
        health=(state.get("Health") or {}).get("Status", ""),
        restarts=container.attrs.get("RestartCount", 0),
        exit_code=state.get("ExitCode", 0),
    )


def services(chosen: Chosen) -> tuple[str, ...]:
    """The services that a stack with these settings has."""
    return (*SERVICES, *MORE_BROKERS) if chosen.has_broker_cluster else SERVICES


def unready(sights: Iterable[Sight], wanted: Iterable[str] = SERVICES) -> dict[str, str]:
    """What is still to come, by service, with how it is now."""
    seen: dict[str, list[Sight]] = {}
    for sight in sights:
        seen.setdefault(sight.service, []).append(sight)
    waiting = {}
    for service in wanted:
        late = [sight for sight in seen.get(service, []) if not sight.ready]
        if late or service not in seen:
            waiting[service] = late[0].condition if late else "not there yet"
    return waiting


def hopeless(sights: Iterable[Sight], restarts_before: Mapping[str, int]) -> Mapping[str, str]:
    """The services for which no waiting helps, with the reason; ``restarts_before`` is by container."""
    reasons = {}
    for sight in sights:
        restarts = sight.restarts - restarts_before.get(sight.container_id, 0)
        if sight.status == "running" and sight.health == "unhealthy":
            reasons[sight.service] = "runs, but does not answer"
        elif restarts > PATIENT_RESTARTS:
            reasons[sight.service] = f"ended {restarts} times by itself"
        elif sight.service in ONE_SHOTS and sight.status == "exited" and sight.exit_code:
            reasons[sight.service] = f"ended with exit code {sight.exit_code}"
    return reasons


def wait_until_healthy(
    client: docker.DockerClient,
    project: str,
    compose_failure: Callable[[], str | None],
    wanted: Sequence[str] = SERVICES,
) -> None:
    """Wait for all ``wanted`` services, saying when each is there.

    ``compose_failure`` is None while compose is at work, empty once it ended well, and else says how it
    failed. Raises ``SetupError`` with the last words of a service that cannot become healthy.
    """
    began = last_said = time.monotonic()
    compose_ended: float | None = None
    done: set[str] = set()
    # A container that was left over from an earlier try may have ended often, and be mended now.
    restarts_before = {sight.container_id: sight.restarts for sight in _look(client, project)}
    while True:
        failure = compose_failure()
        sights = _look(client, project)
        waiting = unready(sights, wanted)
        now = time.monotonic()
        # What was there before may still be replaced by compose, and then begins anew.
        fresh = [sight for sight in sights if sight.container_id not in restarts_before]
        settled = {sight.service for sight in (fresh if failure is None else sights)}
        for service in wanted:
            if service in settled and service not in waiting and service not in done:
                done.add(service)
                last_said = now
                detail(f"{service} is ready ({now - began:.0f} s)")
        if not waiting and failure == "":
            return
        if failure is not None and compose_ended is None:
            compose_ended = now
        # And what stays has a moment to recover.
        lasting = compose_ended is not None and now - compose_ended > _RECOVERY_SECONDS
        reasons = hopeless(sights if failure or lasting else fresh, restarts_before)
        if failure or reasons:
            raise SetupError("\n".join(filter(None, [failure, _explained(client, project, reasons)])))
        if now - began > UP_SECONDS:
            late = {service: f"is not ready after {UP_SECONDS} s ({how})" for service, how in waiting.items()}
            raise SetupError(_explained(client, project, late))
        if now - last_said > _SAY_SECONDS:
            last_said = now
            detail("waiting for " + ", ".join(f"{service} ({how})" for service, how in waiting.items()))
        time.sleep(0.3)


def _look(client: docker.DockerClient, project: str) -> list[Sight]:
    try:
        return look(client, project)
    except (DockerException, RequestException) as error:
        raise SetupError(f"The engine no longer answers: {error}") from error


def _explained(client: docker.DockerClient, project: str, reasons: Mapping[str, str]) -> str:
    sections = []
    for service, reason in reasons.items():
        lines = "\n".join(f"    {line}" for line in last_words(client, project, service))
        sections.append(f"{service} {reason}. Its last words:\n{lines}")
    sections.append(
        "`make stack-up` goes on from here once that is mended; `make stack-down` removes the stack."
    )
    return "\n".join(sections)


def last_words(client: docker.DockerClient, project: str, service: str, count: int = 12) -> list[str]:
    """The end of a service's log."""
    try:
        found = containers(client, project, service)
        text = found[0].logs(tail=count).decode(errors="replace") if found else ""
    except (DockerException, RequestException) as error:
        return [f"(its log cannot be read: {error})"]
    return [line[:400] for line in text.splitlines()] or ["(it said nothing)"]
