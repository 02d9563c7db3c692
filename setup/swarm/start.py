"""`make swarm-init`: a Swarm, this machine as the stack's home, the stack, and how other machines join."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from setup.console import SetupError, detail, say, step
from setup.places import Places
from setup.stack import stack, stack_settings, stack_watch
from setup.swarm import deployment, encryption, proxy, registry, release, settings, sights
from setup.swarm.membership import Membership, look, reached, recall
from setup.swarm.settings import Encryption, SwarmChosen


def init(places: Places) -> None:
    """A Swarm, this machine as the stack's home, the stack, and the line with which other machines join.

    Settings and images first, because that is where mistakes are noticed soonest; then whether the kernel can
    encrypt; then the Swarm, if this engine is in none; then secrets, networks and services at once. Run again
    it finds nearly all of it done, and changes what has changed.
    """
    began = time.monotonic()
    with reached(places) as (client, host, this_machine):
        _require_no_compose_stack(client, places)
        remembered = recall(places)
        before: Mapping[str, str] = remembered.values if remembered else {}
        # Images are chosen anew from their names: what was deployed are digests and ids.
        wanted = dict(before) | registry.remembered(places)
        settings.choose(os.environ, wanted, _chosen(places, before))
        own = stack.prepare(client, places, this_machine, host, os.environ)
        named = settings.choose(os.environ, wanted, own)
        if named.encryption is Encryption.ON:
            with step("Trying whether this kernel can encrypt networks"):
                encryption.require(client)
        else:
            detail("what goes from machine to machine is NOT encrypted (SWARM_ENCRYPTION=off)")
        membership = _be_manager(client, named)
        _be_home(client, membership)
        if named.own.has_broker_cluster:
            sights.require_broker_machines(sights.machines(client))

        def put(image: str) -> str:
            if registry.is_ours(places, named.registry):
                return registry.push(client, host, places, named.registry, image)
            return release.push(client, host, image, named.registry)

        chosen = settings.deployed(named, release.pins(client, named, put), release.secrets_version(places))
        draft = places.swarm_settings.with_suffix(".draft")
        draft.write_text(settings.render(chosen))
        draft.replace(places.swarm_settings)
        proxy.render(client, chosen)
        deployment.deploy(client, host, places, chosen)
        stack.fetch_root_certificate(client, places, chosen.own)
        stack.wait_until_ready(places, chosen.own)
        say(f"\nThe Swarm's stack is up after {time.monotonic() - began:.1f} s.")
        say(_farewell(client, chosen, places))


def _chosen(places: Places, before: Mapping[str, str]) -> stack_settings.Chosen:
    """Enough of the stack's own settings to check ours before anything is built."""
    remembered = {**before, **stack.recall(places)}
    return stack_settings.choose(
        os.environ, remembered, installation=places.installation(), state=str(places.state), docker_socket="",
        source=stack_settings.Source.LOCAL, version="0",
    )  # fmt: skip


def _require_no_compose_stack(client: docker.DockerClient, places: Places) -> None:
    project = f"inferenceserver-{places.installation()}"
    if stack_watch.composed(client, project):
        raise SetupError(
            "The full stack runs on this machine alone (`make stack-up`). `make stack-down` first: its data "
            "stays, and the Swarm goes on with it."
        )


def _be_manager(client: docker.DockerClient, chosen: SwarmChosen) -> Membership:
    membership = look(client)
    address = chosen.values.get("ADVERTISE", "")
    if membership.active:
        if not membership.manager:
            raise SetupError(
                "This engine is in a Swarm as a worker, which cannot deploy: run this on a manager, or "
                "`docker node promote` it there."
            )
        if address and membership.address != address:
            raise SetupError(
                f"ADVERTISE is {address}, but this engine is in a Swarm already, under {membership.address}; "
                "leave ADVERTISE out."
            )
        return membership
    with step("Starting a Swarm"):
        pool = [pool] if (pool := chosen.values.get("ADDRESS_POOL")) else None
        try:
            client.swarm.init(advertise_addr=address or None, default_addr_pool=pool)
        except (APIError, RequestException) as error:
            words = error.explanation if isinstance(error, APIError) else str(error)
            how = (
                "" if address else " Name the address at which other machines reach this one with ADVERTISE=."
            )
            raise SetupError(f"No Swarm could be started: {words}.{how}") from error
        membership = look(client)
        detail(f"other machines reach it at {membership.address}:{settings.PORT}")
    return membership


def _be_home(client: docker.DockerClient, membership: Membership) -> None:
    """Label this machine as the one that keeps the data."""
    for node in client.nodes.list():
        labels = node.attrs["Spec"].get("Labels") or {}
        there = labels.get(sights.HOME_LABEL) == "yes"
        if node.id != membership.node_id and there:
            raise SetupError(
                f"The stack's data is on {node.attrs['Description']['Hostname']}, which has the node label "
                f"{sights.HOME_LABEL}=yes: run this there."
            )
        if node.id == membership.node_id and not there:
            spec = {**node.attrs["Spec"], "Labels": {**labels, sights.HOME_LABEL: "yes"}}
            try:
                node.update(spec)
            except (DockerException, RequestException) as error:
                raise SetupError(
                    f"This machine could not be labelled as the stack's home: {error}"
                ) from error


def _farewell(client: docker.DockerClient, chosen: SwarmChosen, places: Places) -> str:
    membership = look(client)
    line = membership.join_line(client)
    if chosen.registry:
        first = registry.advice(places, chosen)
    else:
        first = (
            "Each must have the consumer's image first (`make bundle-load` there);\n"
            "with a registry it fetches that itself (`make registry-up` here, then this command again).\n"
        )
    return f"""
On every further machine with a container engine, one line:

  {line}

A consumer appears there by itself. {first}
It answers on {chosen.own.address}, and on the same port of every other address of this machine.
`make swarm-status` says how machines and services are, docs/cluster.md says the rest.
"""
