"""`make swarm-leave`: a machine leaves, or on the stack's home the stack ends; tasks end first."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress

import docker
from docker.errors import DockerException
from docker.models.containers import Container

from setup import choices
from setup.console import SetupError, detail, say, step
from setup.engine import leftovers
from setup.places import Places
from setup.swarm import deployment, registry, sights
from setup.swarm.membership import Membership, look, reached, recall

LEAVE_SECONDS = 60
NETWORKS_SECONDS = 15
# The last two are only ever made by compose.yaml, of the same stack.
_VOLUMES = (
    "proxy-state", "proxy-data", "consumer-data", "rabbitmq-data", "broker-data", "postgres-data", "s3-data",
    "prometheus-data", "grafana-data",
)  # fmt: skip


def leave(places: Places) -> None:
    """Let this machine, or the one that NODE names, leave the Swarm; its consumer ends its tasks first.

    On the stack's home the whole stack goes, consumers first; its data stays unless PURGE=1 deletes it.
    """
    purge = choices.read(os.environ, "PURGE")
    with reached(places) as (client, host, _):
        membership = look(client)
        named = os.environ.get("NODE", "")
        if named:
            _send_away(client, membership, named)
        elif membership.manager:
            _end(client, host, places, membership, purge=purge)
        elif membership.active:
            _go(client, host, purge=purge)
        else:
            say("This engine is in no Swarm; nothing to leave.")


def _send_away(client: docker.DockerClient, membership: Membership, name: str) -> None:
    if not membership.manager:
        raise SetupError("NODE= is for a manager; on the machine itself leave it out.")
    found = [node for node in sights.machines(client) if name in {node.name, node.node_id}]
    several = "the name of several machines, so that it must be an id"
    if len(found) != 1:
        raise SetupError(
            f"NODE={name} is {several if found else 'no machine of this Swarm'}; see `docker node ls`."
        )
    (node,) = found
    if node.node_id == membership.node_id:
        raise SetupError("That is this machine; leave NODE out.")
    with step(f"Draining {node.name} (running tasks may end first)"):
        item = client.nodes.get(node.node_id)
        item.update({**item.attrs["Spec"], "Availability": "drain"})
        deadline = time.monotonic() + 3600
        while node.reachable and any(
            task["Status"]["State"] in {"running", "starting", "preparing"}
            for task in sights.jobs_of(client, {"node": node.node_id})
        ):
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{node.name} still runs something after an hour; see `docker node ps {name}`."
                )
            time.sleep(0.3)
    say(
        f"{node.name} takes no more work. On it: docker swarm leave. Then here: docker node rm {node.name}\n"
        f"(or to have it back: docker node update --availability active {node.name})"
    )


def _go(client: docker.DockerClient, host: str, *, purge: bool) -> None:
    """Leave as a worker: nobody here can ask a manager for anything, so the consumer is stopped by hand."""
    label: dict[str, str | list[str] | bool] = {"label": "com.docker.stack.namespace"}
    here = client.containers.list(all=True, filters=label, ignore_removed=True)
    mine = [
        container
        for container in here
        if container.status == "running"
        and container.labels.get("com.docker.swarm.service.name", "").endswith("_consumer")
    ]
    installations = {_environment_of(container).get("INSTALLATION", "") for container in mine}
    stacks = {container.labels["com.docker.stack.namespace"] for container in here}
    for container in mine:
        seconds = int(container.attrs["Config"].get("StopTimeout") or LEAVE_SECONDS)
        with step(f"Stopping the consumer (a running task may end first, {seconds} s at most)"):
            deployment.command_line(host, ["stop", "--time", str(seconds), str(container.id)], {})
    # Before the Swarm starts it again.
    deployment.command_line(host, ["swarm", "leave"], {})
    # Those that had ended are left to nobody.
    for container in client.containers.list(all=True, filters=label, ignore_removed=True):
        leftovers.remove_container(container)
    _remove_networks(client, label)
    for installation in filter(None, installations):
        removed = leftovers.remove(host, installation)
        detail(f"{removed} containers and volumes of models removed from the engine")
    if purge:
        for stack in stacks:
            _remove_volumes(client, stack)
    say("This machine has left the Swarm. On a manager, `docker node rm` forgets it.")


def _remove_networks(client: docker.DockerClient, label: Mapping[str, str | list[str] | bool]) -> None:
    """Remove the Swarm's networks that the engine did not let go of, as after a power cut."""
    deadline = time.monotonic() + NETWORKS_SECONDS
    while left := client.networks.list(filters=dict(label)):
        for network in left:
            # It may be going at this moment, or have an end that is only being closed.
            with suppress(DockerException):
                network.remove()
        if time.monotonic() > deadline:
            names = ", ".join(str(network.name) for network in left)
            detail(f"the engine keeps {names}; it forgets them when it is started again")
            return
        time.sleep(0.5)


def _remove_volumes(client: docker.DockerClient, stack: str) -> None:
    """Remove what any of the stack's services ever kept here."""
    names = [f"{stack}_{name}" for name in _VOLUMES]
    for volume in client.volumes.list(filters={"name": f"{stack}_"}):
        if volume.name in names:
            volume.remove(force=True)


def _environment_of(container: Container) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in container.attrs["Config"]["Env"] if "=" in pair)


def _end(
    client: docker.DockerClient, host: str, places: Places, membership: Membership, *, purge: bool
) -> None:
    chosen = recall(places)
    if chosen is None:
        raise SetupError(
            "This engine manages a Swarm that `make swarm-init` did not deploy to from here; `docker swarm "
            "leave` is for you to decide."
        )
    deployment.remove(client, host, chosen)
    removed = leftovers.remove(host, chosen.own.installation)
    detail(f"{removed} containers and volumes of models removed from the engine")
    if purge:
        _remove_volumes(client, chosen.stack)
        for folder in (places.secrets, places.stack_files):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (places.root_certificate, places.stack_settings):
            file.unlink(missing_ok=True)
        registry.down(client, places)
    others = [node.name for node in sights.machines(client) if node.node_id != membership.node_id]
    places.swarm_settings.unlink(missing_ok=True)
    if others:
        say(
            f"The stack is gone; the Swarm stays, since {', '.join(sorted(others))} belong to it: `docker "
            "swarm leave` there, then `docker swarm leave --force` here."
        )
        _forget_home(client, membership)
    else:
        deployment.command_line(host, ["swarm", "leave", "--force"], {})
        say("The stack is gone, and with it the Swarm.")
    say(
        "All data is deleted."
        if purge
        else "The data stays in its volumes; `make swarm-init` or `make stack-up` goes on with it."
    )


def _forget_home(client: docker.DockerClient, membership: Membership) -> None:
    node = client.nodes.get(membership.node_id)
    labels = {name: text for name, text in node.attrs["Spec"]["Labels"].items() if name != sights.HOME_LABEL}
    node.update({**node.attrs["Spec"], "Labels": labels})
