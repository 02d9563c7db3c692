"""The full stack for tests: compose.yaml as operators run it, under a project, ports and a state of its own.

Fixtures enter. It offers what ``tests.rig.server.Server`` offers, so that the same tests run against both;
what they look at beside HTTP (blobs, the database's bytes, a raw connection) each offers in its own way.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import certifi
import docker

from setup.host import machine
from setup.places import Places
from setup.stack import compose, stack, stack_watch
from setup.stack.stack_settings import Chosen
from tests.models.images import engine
from tests.rig import remains
from tests.rig.api import Api
from tests.rig.containers import freeze, run_inside
from tests.rig.polling import eventually
from tests.rig.ports import free_ports
from tests.rig.tls import TlsConnection

ROOT = Path(__file__).resolve().parents[2]
# What the store holds, as the service sees it that owns it.
_LIST_BLOBS = """
import os, pathlib, urllib.parse, minio
read = lambda name: pathlib.Path(os.environ[name]).read_text().strip()
keys = [read(name) for name in ("S3_ACCESS_KEY_FILE", "S3_SECRET_KEY_FILE")]
address = urllib.parse.urlsplit(os.environ["S3_ENDPOINT"])
store = minio.Minio(address.netloc, access_key=keys[0], secret_key=keys[1], secure=False, region="us-east-1")
print("\\n".join(item.object_name for item in store.list_objects(os.environ["S3_BUCKET"], recursive=True)))
"""


class ContainerService:
    """One service of the stack, as a container that may be killed, frozen and started again."""

    def __init__(self, project: str, name: str) -> None:
        self.name = name
        self._project = project

    @property
    def container(self) -> Any:
        found = stack_watch.containers(engine(), self._project, self.name)
        assert found, f"{self.name} has no container"
        return found[0]

    @property
    def pid(self) -> int:
        return int(self.container.attrs["State"]["Pid"])

    @property
    def running(self) -> bool:
        return bool(self.container.attrs["State"]["Running"])

    @property
    def exit_status(self) -> int | None:
        state = self.container.attrs["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def start(self, **changes: str) -> None:
        """Start it again after ``kill`` or ``stop``; a container keeps its environment."""
        assert not changes, "a container's environment cannot be changed"
        self.container.start()

    def kill(self) -> None:
        """SIGKILL to all of it; the engine does not start again what was killed through it."""
        self.container.kill()
        eventually(lambda: not self.running, 20, f"{self.name} has ended")

    def stop(self, seconds: float = 60.0) -> None:
        """SIGTERM, and the time to end well."""
        self.container.stop(timeout=int(seconds))

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        freeze(self.container)

    def unpause(self) -> None:
        """Let it go on."""
        self.container.unpause()

    def execute(self, command: list[str], *, user: str = "") -> bytes:
        """The output of a command inside, which must succeed."""
        return run_inside(self.container, command, user=user).checked()

    def wait_healthy(self, seconds: float = 90.0) -> None:
        """Wait until the engine calls it healthy."""

        def healthy() -> bool:
            state = self.container.attrs["State"]
            return state["Running"] and (state.get("Health") or {}).get("Status", "healthy") == "healthy"

        eventually(healthy, seconds, f"{self.name} is healthy", every=0.3)

    def last_lines(self, count: int = 40) -> str:
        """The end of its log."""
        return "\n".join(stack_watch.last_words(engine(), self._project, self.name, count))


class Stack:
    """All services behind the proxy's TLS. ``plan`` prepares, compose starts, ``wait_until_up`` waits."""

    def __init__(self, state: Path, *, slots: int = 2, **settings: str) -> None:
        self.places = Places(ROOT, state)
        https_port, http_port = free_ports(2)
        self._environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if name not in {"HTTPS_PORT", "HTTP_PORT"}},
            "IMAGES": os.environ.get("IMAGES", "local"),
            "HTTPS_PORT": str(https_port),
            "HTTP_PORT": str(http_port),
            "CPU_SLOTS": str(slots),
            "GPUS": "none",
            **settings,
        }
        self.words = compose.find(machine.look())
        self.chosen: Chosen

    def prepare(self) -> None:
        """Images, secrets and settings, as `make stack-up` makes them; nothing is started."""
        self.places.make()
        client = engine()
        host = os.environ.get("DOCKER_HOST") or docker.constants.DEFAULT_UNIX_SOCKET.replace("http+", "")
        self.chosen = stack.prepare(client, self.places, machine.look(), host, self._environment)

    @property
    def state(self) -> Path:
        return self.places.state

    @property
    def installation(self) -> str:
        """What the consumer's own containers are labelled with."""
        return self.chosen.installation

    @property
    def url(self) -> str:
        return self.chosen.address

    @property
    def http_url(self) -> str:
        """Where plain HTTP is sent on to TLS."""
        return f"http://localhost:{self.chosen.values['HTTP_PORT']}"

    @property
    def project(self) -> str:
        return self.chosen.project

    def service(self, name: str) -> ContainerService:
        """Any service, by its name in compose.yaml."""
        return ContainerService(self.project, name)

    @property
    def private_api(self) -> ContainerService:
        return self.service("private_api")

    @property
    def public_api(self) -> ContainerService:
        return self.service("public_api")

    @property
    def consumer(self) -> ContainerService:
        return self.service("consumer")

    @property
    def services(self) -> list[ContainerService]:
        return [self.service(name) for name in stack_watch.SERVICES]

    def wait_until_up(self) -> None:
        """Wait until all services are healthy and answer over TLS."""
        stack_watch.wait_until_healthy(engine(), self.project, lambda: "")
        stack.fetch_root_certificate(engine(), self.places, self.chosen)
        stack.wait_until_ready(self.places, self.chosen)

    def trust(self) -> dict[str, str]:
        """The environment in which every client trusts the proxy's certificates, and what it did before."""
        trusted = self.places.run / "trusted.crt"
        before = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
        trusted.write_bytes(Path(before).read_bytes() + self.places.root_certificate.read_bytes())
        return dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"), str(trusted))

    def wait_until_ready(self) -> None:
        """Wait until /readyz says that everything answers."""
        stack.wait_until_ready(self.places, self.chosen)

    @property
    def admin(self) -> Api:
        """The first admin."""
        return Api(self.url, self.key("admin"), trusted=str(self.places.root_certificate))

    def key(self, role: str) -> str:
        """The key that setup made for ``admin`` or ``worker``."""
        return (self.state / f"{role}.key").read_text().strip()

    def caller(self, role: str) -> Api:
        """Somebody new with a key of ``role``."""
        answer = self.admin.post("/v1/keys", json={"name": f"test {secrets.token_hex(3)}", "role": role})
        assert answer.status_code == 201, answer.text
        return Api(self.url, answer.json()["key"], trusted=str(self.places.root_certificate))

    def connect(self) -> TlsConnection:
        """A connection for bytes of one's own."""
        context = ssl.create_default_context(cafile=str(self.places.root_certificate))
        return TlsConnection("localhost", self.chosen.https_port, context)

    def blobs(self) -> set[str]:
        """What lies in the blob store, by name."""
        return set(self.private_api.execute(["python", "-c", _LIST_BLOBS]).decode().split())

    def database_bytes(self) -> bytes:
        """All that the database holds."""
        return self.service("postgres").execute(
            ["pg_dump", "-U", "inferenceserver", "-h", "/var/run/postgresql"]
        )

    def leftovers(self) -> list[str]:
        """What consumers that have stopped should have removed."""
        for container in stack_watch.containers(engine(), self.project, "consumer"):
            container.stop(timeout=60)
        left = remains.all_but_contents(self.installation)
        remains.sweep(self.installation)
        return left

    def description(self) -> list[tuple[str, str]]:
        """Everything that helps to understand a failure: the end of each log, and what is on the engine."""
        sights = {sight.service: sight for sight in stack_watch.look(engine(), self.project)}
        sections = [
            (f"{name} ({sights[name].condition})", ContainerService(self.project, name).last_lines())
            for name in stack_watch.SERVICES
            if name in sights
        ]
        found = remains.description(self.installation)
        return [*sections, (f"engine, installation {self.installation}", found)]

    def environment_of(self, service: str) -> dict[str, str]:
        """The environment with which a service's container was made."""
        pairs = self.service(service).container.attrs["Config"]["Env"]
        return dict(pair.split("=", 1) for pair in pairs)


def everything_about(project: str) -> str:
    """What the engine shows of the project: settings, logs and processes of containers, images' histories."""
    client = engine()
    texts = []
    for container in stack_watch.containers(client, project):
        texts.append(json.dumps(container.attrs))
        texts.append(container.logs().decode(errors="replace"))
        if container.attrs["State"]["Running"]:
            texts.append(json.dumps(container.top(ps_args="-eo pid,args")))
        texts.append(json.dumps(client.api.history(container.attrs["Image"])))
    return "\n".join(texts)
