"""A RabbitMQ broker of three nodes, started with the stack's own files on a network of its own.

Fixtures enter. Its nodes may be killed, cut off from each other, and added; its address names them in that
order.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import docker
import pika
from docker.errors import NotFound
from docker.types import Ulimit
from pika.exceptions import AMQPError

from contracts.announcements import BrokerAddress, broker_address
from setup.stack.stack_secrets import broker_definitions
from tests.rig.brokers import Queues
from tests.rig.containers import run_inside
from tests.rig.parts import LABEL
from tests.rig.polling import eventually
from tests.rig.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "inferenceserver/rabbitmq:1"
_UID = 10001
_CLUSTER = "rabbit@broker-1 rabbit@broker-2 rabbit@broker-3"


class Node:
    """One of the brokers, in a container."""

    def __init__(self, container: Any, number: int, port: int) -> None:
        self.container = container
        self.name = f"rabbit@broker-{number}"
        self.port = port

    def start(self) -> None:
        """Start it again after ``stop`` or ``kill``; it takes a while to answer."""
        self.container.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.container.kill()

    def exec(self, *command: str) -> str:
        """The output of a command inside; raises ``AssertionError`` with it when the command fails."""
        return run_inside(self.container, ["env", "TERM=dumb", *command]).text

    def logs(self) -> str:
        """All that it said."""
        return str(self.container.logs().decode(errors="replace"))

    @property
    def address(self) -> str:
        """Where the other nodes see it."""
        self.container.reload()
        (network,) = self.container.attrs["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def cut_off(self, *others: Node) -> None:
        """Drop every packet between it and ``others``; whoever is no broker still reaches it."""
        for other in others:
            self._filter("-A", "INPUT", "-s", other.address, "-j", "DROP")
            self._filter("-A", "OUTPUT", "-d", other.address, "-j", "DROP")

    def mend(self) -> None:
        """Let all packets through again."""
        self._filter("-F")

    def _filter(self, *words: str) -> None:
        self.container.reload()
        space = f"--net=/proc/{self.container.attrs['State']['Pid']}/ns/net"
        subprocess.run(["nsenter", space, "iptables", "-w", *words], check=True, capture_output=True)


class BrokerCluster(Queues):
    """A broker whose nodes are started one by one, or together; all are removed at the end."""

    def __init__(self) -> None:
        self._client = docker.from_env()
        self._secrets = tempfile.TemporaryDirectory(prefix="inferenceserver-brokers-")
        self.cookie = secrets.token_hex(32)
        self._passwords = {"server": secrets.token_urlsafe(16), "worker": secrets.token_urlsafe(16)}
        self._give("rabbitmq.json", broker_definitions(self._passwords))
        self._give("broker-cookie", self.cookie + "\n")
        for path in (ROOT / "stack/rabbitmq.conf", *(ROOT / "stack/brokers").iterdir()):
            self._give(path.name, path.read_text())
        self._network = self._client.networks.create(
            f"inferenceserver-brokers-{secrets.token_hex(4)}", driver="bridge", labels={LABEL: "1"}
        )
        self._ports = free_ports(3)
        self.nodes: list[Node] = []
        self._strays: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in [*(node.container for node in self.nodes), *self._strays]:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        self._network.remove()
        self._client.close()
        self._secrets.cleanup()

    def add(self) -> Node:
        """Start the next node; it takes a while to answer."""
        number = len(self.nodes) + 1
        container = self._run(number, {"5672/tcp": ("127.0.0.1", self._ports[number - 1])}, "broker-cookie")
        self.nodes.append(Node(container, number, self._ports[number - 1]))
        return self.nodes[-1]

    def stray(self, cookie: str) -> Any:
        """The container of one more node, which has another secret."""
        self._give("another-cookie", cookie)
        self._strays.append(self._run(4, {}, "another-cookie"))
        return self._strays[-1]

    @property
    def address(self) -> BrokerAddress:
        """For the private API, who may do everything."""
        return broker_address(self.url("server"))

    def url(self, user: str) -> str:
        """BROKER_URL for ``server`` or ``worker``, with the password in it."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"amqp://{user}:{self._passwords[user]}@{hosts}/%2F"

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel with all rights, on whichever node answers first."""
        with pika.BlockingConnection([self._parameters(node) for node in self.nodes]) as connection:
            yield connection.channel()

    def answers(self, node: Node) -> bool:
        """Whether a client gets in there."""
        try:
            pika.BlockingConnection(self._parameters(node)).close()
        except AMQPError:
            return False
        return True

    def wait_ready_nodes(self, seconds: float = 90.0) -> None:
        """Wait until every node that was added answers."""
        eventually(
            lambda: all(self.answers(node) for node in self.nodes), seconds, "the brokers answer", every=0.3
        )

    def queues(self) -> dict[str, dict[str, Any]]:
        """What a node that answers says of each queue: ``members``, ``online``, ``leader``.

        Raises ``AssertionError`` while that node knows its queues only in part.
        """
        node = next(node for node in self.nodes if self.answers(node))
        listed = node.exec(
            "rabbitmqctl",
            "--quiet",
            "list_queues",
            "name",
            "members",
            "online",
            "leader",
            "--formatter",
            "json",
        )
        return {queue["name"]: queue for queue in json.loads(listed)}

    def wait_members(self, queue: str, count: int, seconds: float = 60.0) -> None:
        """Wait until so many nodes have a copy of ``queue`` that is up."""

        def look() -> bool:
            try:
                found = self.queues().get(queue, {})
            except (AssertionError, StopIteration, ValueError):
                return False
            return len(found.get("members") or []) == len(found.get("online") or []) == count

        eventually(look, seconds, f"{queue} has {count} members", every=2)

    def description(self) -> list[tuple[str, str]]:
        """What helps to understand a failure."""
        return [(node.name, node.logs()[-4000:]) for node in self.nodes]

    def _parameters(self, node: Node) -> pika.ConnectionParameters:
        return pika.ConnectionParameters(
            "127.0.0.1",
            node.port,
            credentials=pika.PlainCredentials("server", self._passwords["server"]),
            socket_timeout=2,
            stack_timeout=2,
        )

    def _run(self, number: int, ports: dict[str, tuple[str, int]], cookie: str) -> Any:
        name = f"broker-{number}"
        folder = Path(self._secrets.name)
        places = {
            "rabbitmq.json": "/run/secrets/rabbitmq.json",
            cookie: "/run/secrets/broker-cookie",
            "rabbitmq.conf": "/etc/rabbitmq/conf.d/20-stack.conf",
            "cluster.conf": "/etc/rabbitmq/conf.d/30-cluster.conf",
            "node.sh": "/etc/rabbitmq/cluster/node.sh",
            "gather.escript": "/etc/rabbitmq/cluster/gather.escript",
        }
        return self._client.containers.run(
            IMAGE,
            ["sh", "/etc/rabbitmq/cluster/node.sh"],
            detach=True,
            init=True,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            tmpfs={"/tmp": "mode=1777", "/var/log/rabbitmq": f"uid={_UID}"},
            ulimits=[Ulimit(name="nofile", soft=16384, hard=16384)],
            environment={"RABBITMQ_NODENAME": f"rabbit@{name}", "BROKER_CLUSTER": _CLUSTER},
            volumes={str(folder / file): {"bind": place, "mode": "ro"} for file, place in places.items()},
            ports=ports,
            labels={LABEL: "1"},
            network=str(self._network.name),
            networking_config={
                str(self._network.name): self._client.api.create_endpoint_config(aliases=[name])
            },
        )

    def _give(self, name: str, text: str) -> None:
        file = Path(self._secrets.name, name)
        file.write_text(text)
        file.chmod(0o400)
        os.chown(file, _UID, _UID)
