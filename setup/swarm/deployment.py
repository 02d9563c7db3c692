"""Hand the stack to the Swarm and wait until it works.

`docker stack deploy` is the one that reads swarm/stack.yaml; it returns at once, and what it began is watched
here. A second run changes what has changed, one container after the other, the old one stopped first.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import docker

from setup.console import SetupError, detail, step
from setup.places import Places
from setup.swarm import sights
from setup.swarm.settings import Encryption, SwarmChosen
from setup.swarm.sights import jobs_of

UP_SECONDS = 300
GONE_SECONDS = 180
_SAY_SECONDS = 15.0


def command_line(host: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """What Docker's own client says to a command; raises ``SetupError`` with its last words."""
    # Only what the settings say counts for the file; what is set by chance must not.
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    try:
        done = subprocess.run(
            ["docker", "--host", host, *arguments],
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError(
            "Docker's client is not installed, and a Swarm's stack is deployed with it: install the package "
            "docker-cli, docker-ce-cli or docker.io."
        ) from error
    if done.returncode:
        words = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-6:])
        raise SetupError(f"`docker {' '.join(arguments[:2])}` failed:\n{words}")
    return done.stdout.strip()


_KEPT = ("PATH", "HOME", "LANG", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "XDG_RUNTIME_DIR")


def files(places: Places, chosen: SwarmChosen) -> list[Path]:
    """The files that make the stack, later ones adding to earlier."""
    folder = places.checkout / "swarm"
    brokers = [folder / "brokers.yaml"] if chosen.own.has_broker_cluster else []
    encrypted = [folder / "encrypted.yaml"] if chosen.encryption is Encryption.ON else []
    return [folder / "stack.yaml", *brokers, *encrypted]


def deploy(client: docker.DockerClient, host: str, places: Places, chosen: SwarmChosen) -> None:
    """Deploy, and wait until every service runs, on every machine that should have it."""
    before = frozenset(job.job_id for job in sights.jobs(client, chosen.stack))
    given_up = paused(client, chosen)
    with step(f"Deploying the stack {chosen.stack}"):
        arguments = ["stack", "deploy", "--prune", "--resolve-image", "never"]
        if chosen.registry:
            arguments.append("--with-registry-auth")
        for file in files(places, chosen):
            arguments += ["--compose-file", str(file)]
        command_line(host, [*arguments, chosen.stack], chosen.values)
        for service in given_up:
            # The Swarm would leave it half old and half new, even now that the cause may be mended.
            again = ["service", "update", "--detach", "--force", f"{chosen.stack}_{service}"]
            command_line(host, again, {})
        wait_until_running(client, chosen, before)


def wait_until_running(client: docker.DockerClient, chosen: SwarmChosen, before: frozenset[str]) -> None:
    """Wait for all services, saying when each is there; raises ``SetupError`` when one cannot come."""
    began = last_said = time.monotonic()
    done: set[str] = set()
    ever: dict[str, sights.Job] = {}
    wanted = sights.services_of(chosen.own)
    while True:
        seen, nodes = sights.jobs(client, chosen.stack), sights.machines(client)
        ever.update({job.job_id: job for job in seen})
        waiting = sights.unready(seen, nodes, wanted)
        seconds = time.monotonic() - began
        late = {name.split(" on ")[0] for name in waiting}
        for service in wanted:
            if service not in late | done:
                done.add(service)
                last_said = time.monotonic()
                detail(f"{service} is ready ({seconds:.0f} s)")
        if not waiting:
            return
        reasons = sights.hopeless(ever.values(), before, {node.node_id: node.name for node in nodes})
        for service in late & set(paused(client, chosen)):
            reasons.setdefault(service, "could not be updated: a new one of it did not start")
        if not reasons and seconds > UP_SECONDS:
            reasons = {name: f"is not ready after {UP_SECONDS} s ({how})" for name, how in waiting.items()}
        if reasons:
            raise SetupError(explained(client, chosen, reasons))
        if time.monotonic() - last_said > _SAY_SECONDS:
            last_said = time.monotonic()
            detail("waiting for " + ", ".join(f"{name} ({how})" for name, how in waiting.items()))
        time.sleep(0.5)


def paused(client: docker.DockerClient, chosen: SwarmChosen) -> list[str]:
    """The services whose update the Swarm gave up, because a new one of them ended soon."""
    states = sights.updates(client, chosen.stack)
    return [service for service, state in states.items() if state.endswith("paused")]


def explained(client: docker.DockerClient, chosen: SwarmChosen, reasons: Mapping[str, str]) -> str:
    """An error's text: each reason with the service's last words, and how to go on."""
    sections = []
    for name, reason in reasons.items():
        words = last_words(client, f"{chosen.stack}_{name.split(' on ')[0]}")
        sections.append(f"{name} {reason}." + (f" Its last words:\n{words}" if words else ""))
    sections.append(
        "`make swarm-init` goes on from here once that is mended; `make swarm-status` says how it is."
    )
    return "\n".join(sections)


def last_words(client: docker.DockerClient, service: str, count: int = 12) -> str:
    """The end of the log of one service, indented; empty where there is none."""
    try:
        found = client.services.list(filters={"name": service})
        if not found:
            return ""
        chunks = found[0].logs(stdout=True, stderr=True, tail=str(count))
        text = b"".join(chunks).decode(errors="replace")
    except Exception:  # noqa: BLE001 - A log that cannot be read must not hide why it was asked for.
        return ""
    return "\n".join(f"    {line[:400]}" for line in text.splitlines()[-count:])


def remove(client: docker.DockerClient, host: str, chosen: SwarmChosen) -> None:
    """Remove the stack: the consumers first, while what they hand back to is there."""
    seen = sights.services(client, chosen.stack)
    if "consumer" in seen:
        most = chosen.values["CONSUMER_STOP_SECONDS"]
        with step(f"Stopping the consumers (a running task may end first, {most} s at most)"):
            command_line(host, ["service", "rm", f"{chosen.stack}_consumer"], {})
            _wait_until_gone(client, chosen, "consumer", float(most) + 30)
    if seen:
        with step("Removing the services, their networks and secrets"):
            command_line(host, ["stack", "rm", chosen.stack], {})
            _wait_until_gone(client, chosen, "", GONE_SECONDS)


def _wait_until_gone(client: docker.DockerClient, chosen: SwarmChosen, service: str, seconds: float) -> None:
    label = f"{sights.STACK_LABEL}={chosen.stack}"
    deadline = time.monotonic() + seconds
    while True:
        # The service itself is gone at once; by its label its jobs are found until their machines have said
        # that the containers are.
        # One that is down, or has left by itself, will not say that anything is gone.
        heard = {node.node_id for node in sights.machines(client) if node.reachable}
        tasks = [task for task in jobs_of(client, {"label": label}) if task.get("NodeID") in heard]
        wanted = f"{chosen.stack}_{service}"
        here = client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        ours = [c for c in here if not service or c.labels.get("com.docker.swarm.service.name") == wanted]
        networks = [] if service else client.networks.list(filters={"label": label})
        left = [t for t in tasks if t["DesiredState"] == "remove" and t["Status"]["State"] == "running"]
        if not left and not ours and not networks:
            return
        if time.monotonic() > deadline:
            raise SetupError(
                f"Not all of the stack is gone after {seconds:g} s: {len(left)} containers on other "
                f"machines, {len(ours)} here, {len(networks)} networks. Run this again."
            )
        time.sleep(0.3)
