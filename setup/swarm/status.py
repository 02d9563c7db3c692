"""`make swarm-status`: how services and machines are, as the Swarm and the server each see them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import urllib3

from setup.console import SetupError, say
from setup.places import Places
from setup.swarm import sights
from setup.swarm.membership import look, reached, recalled
from setup.swarm.settings import Encryption, SwarmChosen


def status(places: Places) -> None:
    """One line for each service and each machine; an error when something is not as it should be."""
    chosen = recalled(places)
    with reached(places) as (client, _, _):
        if not look(client).manager:
            raise SetupError("This engine is no manager of a Swarm; ask on one that is.")
        seen, nodes = sights.jobs(client, chosen.stack), sights.machines(client)
    wanted = sights.services_of(chosen.own)
    waiting = sights.unready(seen, nodes, wanted)
    for service in wanted:
        if service != "consumer":
            say(f"{service:<12} {waiting.get(service, 'running')}")
    say("")
    heard = _heard(places, chosen)
    for node in sorted(nodes, key=lambda node: node.name):
        words = [f"{node.name:<20} {node.address:<16} {node.state}, {node.availability}", _how(node, waiting)]
        if _should_be_heard(node, waiting) and heard is not None:
            words.append(heard.get(node.name, "never heard by the server"))
        say(", ".join(words))
    if chosen.encryption is Encryption.OFF:
        say("\nWhat goes from machine to machine is NOT encrypted (SWARM_ENCRYPTION=off).")
    found = troubles(chosen, seen, nodes, heard)
    if found:
        raise SetupError("Not as it should be: " + "; ".join(f"{name} {how}" for name, how in found.items()))
    say(f"\nAll is ready on {chosen.own.address}.")


def troubles(
    chosen: SwarmChosen,
    seen: Sequence[sights.Job],
    nodes: Sequence[sights.Machine],
    heard: Mapping[str, str] | None,
) -> dict[str, str]:
    """What an operator has to see to, by service or machine. ``heard`` is what the server says."""
    waiting = sights.unready(seen, nodes, sights.services_of(chosen.own))
    found = {name: f"is not ready ({how})" for name, how in waiting.items()}
    late = {name.split(" on ")[0] for name in waiting}
    names = [node.name for node in nodes]
    reasons = sights.hopeless(seen, frozenset(), {node.node_id: node.name for node in nodes})
    found |= {name: reason for name, reason in reasons.items() if name in late}
    for node in nodes:
        if not node.reachable:
            found[node.name] = f"is {node.state}: the manager does not hear it"
        elif heard is not None and _should_be_heard(node, waiting) and node.name not in heard:
            found[node.name] = _silence(chosen)
        if names.count(node.name) > 1:
            found[node.name] = (
                "is the name of several machines, of which only one is given tasks: rename them"
            )
    return found


def _should_be_heard(node: sights.Machine, waiting: Mapping[str, str]) -> bool:
    return node.takes_consumer and f"consumer on {node.name}" not in waiting


def _how(node: sights.Machine, waiting: Mapping[str, str]) -> str:
    if node.labels.get(sights.CONSUMER_LABEL) == "off":
        return f"no consumer ({sights.CONSUMER_LABEL}=off)"
    if not node.takes_consumer:
        return "no consumer"
    return f"consumer {waiting[name]}" if (name := f"consumer on {node.name}") in waiting else "consumer runs"


def _silence(chosen: SwarmChosen) -> str:
    cause = (
        "the networks are encrypted, and its kernel may not be able to, or a firewall may drop protocol 50"
        if chosen.encryption is Encryption.ON
        else "a firewall may drop UDP 4789 or 7946 between it and this machine"
    )
    return f"has a consumer that does not reach the server: {cause}"


def _heard(places: Places, chosen: SwarmChosen) -> dict[str, str] | None:
    """What the server says of each node by name; None where it cannot be asked."""
    pool = urllib3.HTTPSConnectionPool(
        chosen.own.values["PUBLISH_ADDRESS"],
        chosen.own.https_port,
        ca_certs=str(places.root_certificate),
        server_hostname="localhost",
        assert_hostname="localhost",
        timeout=10,
        retries=False,
    )
    headers = {"Host": "localhost", "Authorization": f"Bearer {places.admin_key.read_text().strip()}"}
    try:
        answer = pool.request("GET", "/v1/nodes", headers=headers)
        if answer.status != 200:
            return None
        listed = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return None
    return {
        str(node["name"]): f"{node['state']}, heard {node['heard_at']}" for node in listed.get("items", [])
    }
