"""What a Swarm shows of our stack, and what that means: which services are there, which cannot come, and
which machines run what. Looking is thin; judging is pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.stack.stack_settings import Chosen

STACK_LABEL = "com.docker.stack.namespace"
HOME_LABEL = "inferenceserver.home"
# The node label whose value `off` keeps the consumer away.
CONSUMER_LABEL = "inferenceserver"
# What belongs to every stack.
SERVICES = ("postgres", "s3", "rabbitmq", "private_api", "public_api", "consumer", "proxy")
# With a broker of three nodes these take the place of one.
BROKERS = ("rabbitmq-1", "rabbitmq-2", "rabbitmq-3")
# The node label that says which of them a machine has: 1, 2 or 3.
BROKER_LABEL = "inferenceserver.broker"
# So often may a service end by itself before we stop waiting for it: those that need another try again until
# that is there.
PATIENT_FAILURES = 6
# None of them ends by itself, however well.
_ENDED = ("failed", "rejected", "complete")


@dataclass(frozen=True)
class Machine:
    """One node of the Swarm."""

    node_id: str
    name: str
    address: str
    state: str  # ready, down, unknown, disconnected
    availability: str  # active, pause, drain
    role: str  # manager, worker
    labels: Mapping[str, str]

    @property
    def reachable(self) -> bool:
        """Whether a manager hears it."""
        return self.state == "ready"

    @property
    def takes_consumer(self) -> bool:
        """Whether a consumer should be running there."""
        return self.reachable and self.availability == "active" and self.labels.get(CONSUMER_LABEL) != "off"


@dataclass(frozen=True)
class Job:
    """One container that a service was to have: what Docker calls a task."""

    job_id: str
    service: str
    node_id: str
    wanted: str  # running, shutdown, remove
    state: str  # new … preparing, starting, running, complete, failed, rejected, shutdown, orphaned
    error: str
    created_at: str
    # Whether it was made as the service says now.
    current: bool = True

    @property
    def runs(self) -> bool:
        """Whether it runs as it should, and is healthy where that can be asked."""
        return self.current and self.wanted == "running" and self.state == "running"

    @property
    def over(self) -> bool:
        """Whether it runs no more and never will."""
        return self.state in {"complete", "failed", "rejected", "shutdown", "orphaned", "remove"}


def machines(client: docker.DockerClient) -> list[Machine]:
    """The Swarm's nodes; only a manager can say."""
    return [_machine(item) for item in _ask(client.api.nodes)]


def jobs(client: docker.DockerClient, stack: str) -> list[Job]:
    """What the services of our stack have and had, the newest first."""
    services = {item["ID"]: item["Spec"] for item in _services(client, stack)}
    listed = jobs_of(client, {"label": f"{STACK_LABEL}={stack}"})
    seen = []
    for item in listed:
        if spec := services.get(item["ServiceID"]):
            name = spec["Name"].removeprefix(f"{stack}_")
            seen.append(_job(item, name, current=is_current(item["Spec"], spec["TaskTemplate"])))
    return sorted(seen, key=lambda job: job.created_at, reverse=True)


def is_current(job: Mapping[str, Any], template: Mapping[str, Any]) -> bool:
    """Whether a job was made as its service's template says now."""
    # A service is told which runtime it has by default; its jobs say nothing of it.
    return {"Runtime": "container", **job} == {"Runtime": "container", **template}


def jobs_of(client: docker.DockerClient, chosen: Mapping[str, str]) -> list[Any]:
    """What Docker says of the jobs that a filter chooses."""
    listed: list[Any] = _ask(lambda: client.api.tasks(dict(chosen)))  # type: ignore[no-untyped-call]
    return listed


def _services(client: docker.DockerClient, stack: str) -> list[Any]:
    chosen = {"label": f"{STACK_LABEL}={stack}"}
    return list(_ask(lambda: client.api.services(chosen)))  # type: ignore[no-untyped-call]


def services(client: docker.DockerClient, stack: str) -> list[str]:
    """The names of our stack's services, without the stack's."""
    return [item["Spec"]["Name"].removeprefix(f"{stack}_") for item in _services(client, stack)]


def updates(client: docker.DockerClient, stack: str) -> dict[str, str]:
    """How the last update of each service stands, in the Swarm's word."""
    found = {}
    for item in _services(client, stack):
        name = item["Spec"]["Name"].removeprefix(f"{stack}_")
        found[name] = str((item.get("UpdateStatus") or {}).get("State", ""))
    return found


def _machine(item: Any) -> Machine:
    spec, description, status = item["Spec"], item["Description"], item["Status"]
    return Machine(
        node_id=item["ID"],
        name=description.get("Hostname", ""),
        address=status.get("Addr", ""),
        state=status.get("State", ""),
        availability=spec.get("Availability", ""),
        role=spec.get("Role", ""),
        labels=spec.get("Labels") or {},
    )


def _job(item: Any, service: str, *, current: bool) -> Job:
    status = item["Status"]
    return Job(
        job_id=item["ID"],
        service=service,
        node_id=item.get("NodeID", ""),
        wanted=item["DesiredState"],
        state=status["State"],
        error=status.get("Err", ""),
        created_at=item["CreatedAt"],
        current=current,
    )


def _ask(question: Any) -> Any:
    try:
        return question()
    except (DockerException, RequestException) as error:
        raise SetupError(f"The Swarm's manager does not answer: {error}") from error


def services_of(chosen: Chosen) -> tuple[str, ...]:
    """The services that a stack with these settings has."""
    if not chosen.has_broker_cluster:
        return SERVICES
    return (*(service for service in SERVICES if service != "rabbitmq"), *BROKERS)


def require_broker_machines(nodes: Iterable[Machine]) -> None:
    """Raise ``SetupError`` unless each node of a broker of three has exactly one machine, of its own."""
    numbers = {node.name: node.labels[BROKER_LABEL] for node in nodes if BROKER_LABEL in node.labels}
    if sorted(numbers.values()) == ["1", "2", "3"]:
        return
    found = ", ".join(f"{name} has {number}" for name, number in sorted(numbers.items()))
    raise SetupError(
        f"BROKER_NODES=3 needs three machines with the node labels {BROKER_LABEL}=1, 2 and 3, one each; "
        f"{found or 'no machine has one'}. Deploy with BROKER_NODES=1 first, let the machines join, then for "
        f"each: docker node update --label-add {BROKER_LABEL}=NUMBER MACHINE"
    )


def unready(
    seen: Iterable[Job], nodes: Iterable[Machine], wanted: Iterable[str] = SERVICES
) -> dict[str, str]:
    """What is still to come, with how it is now: a service, or ``consumer on NAME``."""
    newest = _newest(seen)
    by_service: dict[str, list[Job]] = {}
    for job in newest:
        by_service.setdefault(job.service, []).append(job)
    waiting = {}
    for service in wanted:
        if service == "consumer":
            continue
        mine = by_service.get(service, [])
        if not any(job.runs for job in mine) or any(job.wanted == "running" and not job.runs for job in mine):
            waiting[service] = _words(mine[0]) if mine else "not there yet"
    running = {job.node_id: job for job in by_service.get("consumer", [])}
    for node in nodes:
        there = running.get(node.node_id)
        if node.takes_consumer and not (there and there.runs):
            waiting[f"consumer on {node.name}"] = _words(there) if there else "not there yet"
    return waiting


def _newest(seen: Iterable[Job]) -> list[Job]:
    """Of each place the newest job: a service has one at home, the consumer one on each machine."""
    found: dict[tuple[str, str], Job] = {}
    for job in sorted(seen, key=lambda job: job.created_at, reverse=True):
        place = (job.service, job.node_id if job.service == "consumer" else "")
        found.setdefault(place, job)
    return list(found.values())


def _words(job: Job) -> str:
    if not job.current and job.state == "running":
        return "runs its earlier version"
    return f"{job.state}: {job.error}" if job.error else job.state


def hopeless(seen: Iterable[Job], before: frozenset[str], names: Mapping[str, str]) -> dict[str, str]:
    """The services for which no waiting helps, with the reason.

    ``seen`` are all jobs that were ever seen, for a Swarm forgets the older ones; ``before`` those there were
    already, ``names`` the machines' by their id. What ended of an earlier version says nothing of this one.
    """
    failures: dict[str, list[Job]] = {}
    for job in seen:
        if job.current and job.job_id not in before and job.state in _ENDED and job.wanted != "remove":
            failures.setdefault(job.service, []).append(job)
    reasons = {}
    for service, failed in failures.items():
        last = max(failed, key=lambda job: job.created_at)
        lacking = [job for job in failed if lacks_image(job.error)]
        if lacking:
            where = ", ".join(sorted({names.get(job.node_id, "?") for job in lacking}))
            reasons[service] = (
                f"has no image on {where}: load it there (`make bundle-load`), or have it fetched from a "
                "registry (`make registry-up`, or REGISTRY=)"
            )
        elif len(failed) > PATIENT_FAILURES:
            reasons[service] = f"ended {len(failed)} times by itself, last with: {last.error}"
    return reasons


def lacks_image(error: str) -> bool:
    """Whether a job ended because its machine has no such image and could not get it."""
    return "no such image" in error.lower() or "no such manifest" in error.lower()
