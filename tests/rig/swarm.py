"""A Swarm of machines with the full stack, made as an operator makes it: `swarm-init` on the first, one line
on the others.

`tests/swarm` enters, as root. The images come from the tests' engine; nothing of the machines reaches the
world.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from setup.images import base_image, part_images, service_images
from setup.places import Places
from setup.stack import stack_settings
from setup.swarm import registry, settings
from tests.models.images import image_of
from tests.rig.api import Api
from tests.rig.containers import run_inside
from tests.rig.nodes import Node, Switch
from tests.rig.polling import eventually
from tests.rig.stack import ROOT

HTTPS_PORT = 8443
TASK_LABEL = "org.inferenceserver.task"
# What the tests' models are; every machine has them.
MODELS = ("echo", "slow-echo", "sleeps-for-ever")


class SwarmStack:
    """The stack on several machines. The first is its home; ``machines`` come and go."""

    def __init__(self, state: Path, models: Sequence[str] = MODELS, **stack_settings_: str) -> None:
        self.places = Places(ROOT, state)
        self.switch = Switch()
        self.machines: list[Node] = []
        self._added = 0
        self.join_line: list[str] = []
        self._models = models
        self._settings = {"IMAGES": "local", "GPUS": "none", "SWARM_ENCRYPTION": "off", **stack_settings_}
        self._version = service_images.read_version(ROOT)

    @property
    def home(self) -> Node:
        return self.machines[0]

    # Machines.

    def add(self, **options: Any) -> Node:
        """One machine more, switched on, with nothing on it."""
        self._added += 1
        node = Node(self.switch, self._added, **options)
        self.machines.append(node)
        node.begin()
        return node

    def stock(self, node: Node, *, home: bool = False) -> None:
        """Have a machine load what it needs, as from a bundle."""
        node.wait_until_it_answers()
        node.load(*(self._all_images() if home else [self.consumer_image]), *map(image_of, self._models))

    @property
    def consumer_image(self) -> str:
        return service_images.CONSUMER.tag(self._version)

    def _all_images(self) -> list[str]:
        ours = [service.tag(self._version) for service in service_images.ALL]
        parts = [part.tag for part in (*part_images.ALL, registry.IMAGE)]
        return [base_image.SYSTEM_TAG, base_image.TAG, *parts, *ours]

    def begin(self) -> None:
        """The stack on the first machine, while the others load what they need."""

        def home() -> None:
            self.stock(self.home, home=True)
            self.init()

        at_once([home, *(lambda node=node: self.stock(node) for node in self.machines[1:])])

    # Commands, as an operator types them.

    def make(self, command: str, node: Node | None = None, *, check: bool = True, **variables: Any) -> str:
        """`make COMMAND VARIABLE=…` on a machine, the home unless another is named; what it printed."""
        kept = {name: value for name, value in os.environ.items() if name not in {"DOCKER_HOST", "ARGS"}}
        state = self.places.state if node in {None, self.home} else self.places.state.with_name("elsewhere")
        environment = {**kept, "STATE_DIRECTORY": str(state), **self._settings, **variables}
        words = ["env", "-C", str(ROOT), sys.executable, "-m", "setup", command]
        return (node or self.home).run(*words, environment=environment, check=check)

    def init(self, **variables: Any) -> str:
        """`make swarm-init`; remembers the line for other machines."""
        printed = self.make("swarm-init", ADVERTISE=self.home.address, **variables)
        found = re.search(r"^ +(docker swarm join --token \S+ \S+)$", printed, re.MULTILINE)
        assert found, printed
        self.join_line = found.group(1).split()
        return printed

    def join(self, node: Node) -> None:
        """Type the line that `swarm-init` printed."""
        node.run(*self.join_line)

    # What there is.

    @property
    def stack(self) -> str:
        """The stack's name."""
        return settings.parse(self.places.swarm_settings.read_text())["STACK"]

    @property
    def own(self) -> stack_settings.Chosen:
        """The stack's own settings."""
        return stack_settings.Chosen(settings.parse(self.places.swarm_settings.read_text()))

    @property
    def admin(self) -> Api:
        """The first admin, through the proxy's TLS at the home's address."""
        return self.caller_with(self.places.admin_key.read_text().strip())

    def caller(self, role: str) -> Api:
        """Somebody new with a key of ``role``."""
        answer = self.admin.post("/v1/keys", json={"name": f"test {secrets.token_hex(3)}", "role": role})
        assert answer.status_code == 201, answer.text
        return self.caller_with(answer.json()["key"])

    def caller_with(self, key: str) -> Api:
        """Whoever has that key."""
        session = requests.Session()
        session.trust_env = False
        session.headers["Host"] = "localhost"
        session.mount("https://", _KnownAsLocalhost())
        url = f"https://{self.home.address}:{HTTPS_PORT}"
        return Api(url, key, session, trusted=str(self.places.root_certificate))

    def consumer(self, node: Node) -> Any:
        """The consumer's running container on a machine; None where there is none."""
        return self._container(node, "consumer")

    def container_at_home(self, service: str) -> Any:
        """A service's running container on the first machine; None where there is none."""
        return self._container(self.home, service)

    def _container(self, node: Node, service: str) -> Any:
        label = f"com.docker.swarm.service.name={self.stack}_{service}"
        found = node.client.containers.list(filters={"label": label}, ignore_removed=True)
        return found[0] if found else None

    def wait_for_consumers(self, *nodes: Node, seconds: float = 90.0) -> None:
        """Wait until each of them has one that the server hears."""
        wanted = {node.host_name for node in nodes}

        def heard() -> bool:
            answer = self.admin.get("/v1/nodes")
            known = {item["name"]: item for item in answer.json().get("items", [])}
            ready = {name for name, item in known.items() if item["state"] == "ready" and not item["left"]}
            return wanted <= ready and all(self._has_its_consumer(node) for node in nodes)

        eventually(heard, seconds, f"{wanted} are heard", every=0.5)

    def _has_its_consumer(self, node: Node) -> bool:
        """Whether what runs there is what the manager wants to, and not about to be made anew."""
        container = self.consumer(node)
        if container is None:
            return False
        task_id = container.labels["com.docker.swarm.task.id"]
        job = self.home.client.api.inspect_task(task_id)  # type: ignore[no-untyped-call]
        return bool(job["DesiredState"] == "running" and job["Status"]["State"] == "running")

    def models_of(self, node: Node, task: dict[str, Any] | None = None) -> list[Any]:
        """The models' containers on a machine, or those of one task."""
        label = f"{TASK_LABEL}={task['id']}" if task else TASK_LABEL
        listed = node.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return [item for item in listed if item.labels.get("org.inferenceserver.role") == "model"]

    def where(self, task: dict[str, Any], seconds: float = 30.0) -> Node:
        """The machine on which a task's container runs, once it does."""

        def look() -> Node | None:
            for node in self.machines:
                if node.running and any(item.status == "running" for item in self.models_of(node, task)):
                    return node
            return None

        return eventually(look, seconds, f"task {task['id']} runs on a machine", every=0.2)

    def recorded(self, task: dict[str, Any], column: str) -> str:
        """A column of the task's row in the database: where it ran last, how many attempts were spoiled."""
        label = f"com.docker.swarm.service.name={self.stack}_postgres"
        (postgres,) = self.home.client.containers.list(filters={"label": label})
        query = f"SELECT {column} FROM tasks WHERE id = '{task['id']}'"
        psql = ["psql", "-h", "/var/run/postgresql", "-U", "inferenceserver", "-tAc", query]
        return run_inside(postgres, psql).text.strip()

    def label(self, node: Node, text: str) -> None:
        """`docker node update --label-add` at the manager; an empty one removes it."""
        change = ["--label-add", f"inferenceserver={text}"] if text else ["--label-rm", "inferenceserver"]
        self.home.run("docker", "node", "update", *change, self.id_of(node))

    def id_of(self, node: Node) -> str:
        """The machine's id in the Swarm."""
        return node.run("docker", "info", "--format", "{{.Swarm.NodeID}}")

    def remains(self) -> list[str]:
        """What a stack that was purged has left on its machines."""
        eventually(lambda: not any(map(_swarm_networks, self.machines)), 30, "the Swarm's networks are gone")
        found = [f"{node.host_name}: {left}" for node in self.machines for left in _on_engine(node)]
        kept = {"installation", "admin.key", "worker.key", "logs", "run", "consumer", "engine.json"}
        return found + [path.name for path in self.places.state.iterdir() if path.name not in kept]

    def description(self) -> list[tuple[str, str]]:
        """Everything that helps to understand a failure."""
        sections = []
        for node in self.machines:
            if node.running:
                seen = node.run("docker", "ps", "--all", "--format", "{{.Names}} {{.Status}}", check=False)
                sections.append((f"machine {node.host_name}", seen))
        if self.home.running:
            shown = ["docker", "stack", "ps", "--no-trunc", "--format"]
            line = "{{.Name}} {{.Node}} {{.CurrentState}} {{.Error}}"
            sections.append(("stack", self.home.run(*shown, line, self.stack, check=False)))
            for service in ("private_api", "consumer"):
                words = ["docker", "service", "logs", "--tail", "25", f"{self.stack}_{service}"]
                sections.append((service, self.home.run(*words, check=False)))
        return sections

    def close(self) -> list[str]:
        """Switch everything off; what is left of it, which is to be nothing."""
        at_once([node.close for node in self.machines])
        self.switch.close()
        return [trace for node in self.machines for trace in node.traces()]


def _swarm_networks(node: Node) -> list[Any]:
    # Docker's own `ingress` may stay on an engine that was killed as a manager.
    overlays = [item for item in node.client.networks.list() if item.attrs["Driver"] == "overlay"]
    return [item for item in overlays if item.name.startswith("inferenceserver-")]


def _on_engine(node: Node) -> list[str]:
    containers = node.client.containers.list(all=True, ignore_removed=True)
    # What is cached stays on a machine that may come back, as its consumer's directory does.
    volumes = [
        item
        for item in node.client.volumes.list()
        if (item.attrs["Labels"] or {}).get("org.inferenceserver.role") != "content"
        and not item.name.endswith("_consumer-data")
    ]
    return [*(str(item.name) for item in containers), *(str(item.name) for item in volumes)]


class _KnownAsLocalhost(HTTPAdapter):
    """The proxy's certificate names localhost; the machines have addresses of the tests' own."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(
            *arguments, assert_hostname="localhost", server_hostname="localhost", **options
        )


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls side by side; raises what one of them raised."""
    failed: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - Raised below, in the caller's thread.
            failed.append(error)

    threads = [threading.Thread(target=run, args=[call]) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


class Stopwatch:
    """What each fault's recovery took, in seconds; printed at the end for docs/reliability.md."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._began = time.monotonic()

    def begin(self) -> None:
        """The fault happens now."""
        self._began = time.monotonic()

    def lap(self, what: str) -> float:
        """It is mended."""
        self.laps[what] = time.monotonic() - self._began
        return self.laps[what]
