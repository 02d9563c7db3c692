"""A whole server for tests: three real processes, a state directory and an installation of its own.

Fixtures enter. Several may run at once on one machine and one engine, beside anybody's own server.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import requests

from tests.rig import remains
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.ports import free_ports
from tests.rig.processes import Service


class Server:
    """private_api, public_api and one consumer (more may be added)."""

    def __init__(self, state: Path, *, slots: int = 2, **settings: str) -> None:
        self.state = state
        self.installation = f"rig-{secrets.token_hex(4)}"
        self._logs = state / "logs"
        self._logs.mkdir(parents=True)
        private_port, public_port = free_ports(2)
        self.url = f"http://127.0.0.1:{public_port}"
        self.private_url = f"http://127.0.0.1:{private_port}"
        self._settings = {
            "PRIVATE_API_BIND": f"127.0.0.1:{private_port}",
            "DATABASE_URL": f"sqlite:///{state}/database.sqlite",
            "BLOB_DIRECTORY": str(state / "blobs"),
            "KEY_DIRECTORY": str(state),
            "PUBLIC_API_BIND": f"127.0.0.1:{public_port}",
            "PRIVATE_API_URL": self.private_url,
            "WORKER_KEY_FILE": str(state / "worker.key"),
            "INSTALLATION": self.installation,
            "GPUS": "none",
            **settings,
        }
        self.private_api = self._service("private_api")
        self.public_api = self._service("public_api")
        self.consumers: list[Service] = []
        self.consumer = self.add_consumer("node-1", slots=slots)

    def add_consumer(self, node: str, *, slots: int) -> Service:
        """One more node, on the same engine; not started yet."""
        place = {
            "NODE_NAME": node,
            "CONSUMER_DIRECTORY": str(self.state / "consumers" / node),
            "CPU_SLOTS": str(slots),
        }
        service = self._service("consumer", f"consumer-{node}", place)
        self.consumers.append(service)
        return service

    @property
    def services(self) -> list[Service]:
        return [self.private_api, self.public_api, *self.consumers]

    def start(self) -> None:
        """Start the two APIs and the first consumer, and wait until requests are answered."""
        self.private_api.start()
        self.public_api.start()
        # The worker's key is made by the private API at its first start.
        self.wait_until_ready()
        self.consumer.start()

    def wait_until_ready(self, seconds: float = 30.0) -> None:
        """Wait until /readyz says that everything answers."""
        eventually(self._is_ready, seconds, f"{self.url}/readyz answers 200", every=0.1)

    def _is_ready(self) -> bool:
        for service in (self.private_api, self.public_api):
            assert service.running, (
                f"{service.name} ended with {service.exit_status}:\n{service.last_lines()}"
            )
        try:
            return requests.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    @property
    def admin(self) -> Api:
        """The first admin."""
        return Api(self.url, self.key("admin"))

    def key(self, role: str) -> str:
        """The key that the private API made for ``admin`` or ``worker``."""
        return (self.state / f"{role}.key").read_text().strip()

    def caller(self, role: str) -> Api:
        """Somebody new with a key of ``role``."""
        answer = self.admin.post("/v1/keys", json={"name": f"test {secrets.token_hex(3)}", "role": role})
        assert answer.status_code == 201, answer.text
        return Api(self.url, answer.json()["key"])

    def connect(self) -> socket.socket:
        """A connection for bytes of one's own."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=20)

    def blobs(self) -> set[str]:
        """What lies in the blob store, by name."""
        return {str(path) for path in (self.state / "blobs").rglob("*") if path.is_file()}

    def database_bytes(self) -> bytes:
        """All that the database holds."""
        return b"".join(path.read_bytes() for path in sorted(self.state.glob("database.sqlite*")))

    def stop(self) -> list[str]:
        """Stop everything and sweep; returns what should not have been left, empty when all is well."""
        left: list[str] = []
        # In this order nobody speaks to somebody who has left.
        for service in [*reversed(self.consumers), self.public_api, self.private_api]:
            try:
                service.stop()
            except AssertionError as error:
                left.append(str(error))
        left += remains.all_but_contents(self.installation)
        left += [f"directory {path}" for path in (self.state / "consumers").rglob("work/*")]
        remains.sweep(self.installation)
        subprocess.run(["rm", "-rf", "--", self.state / "consumers", self.state / "blobs"], check=True)
        return left

    def description(self) -> list[tuple[str, str]]:
        """Everything that helps to understand a failure: the end of each log, and what is on the engine."""
        sections = [
            (f"{s.name} (pid {s.pid}, exit {s.exit_status})", s.last_lines())
            for s in self.services
            if s.log.exists()
        ]
        return [
            *sections,
            (f"engine, installation {self.installation}", remains.description(self.installation)),
        ]

    def _service(self, module: str, name: str = "", more: dict[str, str] | None = None) -> Service:
        return Service(module, {**self._settings, **(more or {})}, self._logs / f"{name or module}.log", name)
