"""The real services that ours stand on, each in a container of its own: PostgreSQL, RabbitMQ, an S3 store.

Fixtures enter. The images are those of the stack (``python -m setup images`` builds them); a missing image or
engine fails the test. A part keeps its port and its data through kills and restarts, until it is removed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import socket
import tempfile
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pika
import urllib3
from docker.errors import APIError, NotFound
from minio import Minio
from minio.error import MinioException

from tests.rig.containers import freeze, run_inside
from tests.rig.polling import eventually

LABEL = "org.inferenceserver.test-part"
# The services' own user in all their images.
_UID = 10001
_BUCKET_KEY = "inferenceserver:server"


@dataclass
class Part:
    """One container with a service in it."""

    container_id: str
    host: str
    port: int
    user: str
    password: str
    url: str
    _answers: Callable[[Part], bool]
    _secrets: tempfile.TemporaryDirectory[str]
    _client: docker.DockerClient = field(repr=False)

    def start(self) -> None:
        """Start it again after ``stop`` or ``kill``; it may take a while to answer."""
        self._container.start()

    def stop(self) -> None:
        """End it as an operator would."""
        self._container.stop(timeout=20)

    def kill(self) -> None:
        """End it as a power cut would end its process."""
        self._container.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        freeze(self._container)

    def unpause(self) -> None:
        """Let it go on."""
        self._container.unpause()

    def exec(self, command: list[str], *, user: str = "") -> str:
        """The output of a command inside; raises ``AssertionError`` with it when the command fails."""
        return run_inside(self._container, command, user=user).text

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until it answers."""
        eventually(self._is_ready, seconds, f"{self.url} answers", every=0.2)

    def remove(self) -> None:
        """Remove it with all its data; fine when it is gone."""
        with contextlib.suppress(NotFound):
            self._container.remove(force=True, v=True)
        self._client.close()
        self._secrets.cleanup()

    def logs(self) -> str:
        """The end of what it said."""
        return str(self._container.logs(tail=60).decode(errors="replace"))

    @property
    def _container(self) -> Any:
        return self._client.containers.get(self.container_id)

    def _is_ready(self) -> bool:
        self._container.reload()
        status = self._container.status
        assert status in {"running", "created", "paused"}, f"{self.url} is {status}:\n{self.logs()}"
        return self._answers(self)


def start_postgres(**settings: str) -> Part:
    """A PostgreSQL server with an empty database; ``settings`` are its own (``max_connections="30"``)."""
    password = secrets.token_urlsafe(16)
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return _start(
        "inferenceserver/postgres:1",
        ["postgres", *flags],
        port=5432,
        user="inferenceserver",
        password=password,
        url="postgresql+psycopg2://{user}:{password}@{host}:{port}/inferenceserver",
        files={"password": password},
        environment={
            "POSTGRES_USER": "inferenceserver",
            "POSTGRES_DB": "inferenceserver",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
        },
        answers=lambda part: _succeeds(part, ["pg_isready", "-h", "127.0.0.1", "-U", "inferenceserver"]),
    )


def start_rabbitmq(configuration: str = "") -> Part:
    """A RabbitMQ broker whose administrator is ``server``; ``configuration`` is lines of rabbitmq.conf."""
    password, worker = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    definitions = {
        "vhosts": [{"name": "/"}],
        "users": [
            {"name": "server", "password_hash": rabbitmq_hash(password), "tags": "administrator"},
            {"name": "worker", "password_hash": rabbitmq_hash(worker), "tags": ""},
        ],
        "permissions": [
            {"user": "server", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {"user": "worker", "vhost": "/", "configure": "", "write": "", "read": r"^tasks\.(cpu|gpu)$"},
        ],
    }
    return _start(
        "inferenceserver/rabbitmq:1",
        [],
        port=5672,
        user="server",
        password=password,
        url="amqp://{user}:{password}@{host}:{port}/%2F",
        files={
            "rabbitmq.json": json.dumps(definitions),
            "20-test.conf": f"load_definitions = /run/secrets/rabbitmq.json\n{configuration}\n",
            "worker-password": worker,
        },
        environment={},
        answers=_broker_answers,
        places={"20-test.conf": "/etc/rabbitmq/conf.d/20-test.conf"},
    )


def worker_url(rabbitmq: Part) -> str:
    """The address at which a consumer's user, who may only read, reaches the broker."""
    password = Path(rabbitmq._secrets.name, "worker-password").read_text()
    return f"amqp://worker:{password}@{rabbitmq.host}:{rabbitmq.port}/%2F"


def start_s3() -> Part:
    """An S3 store; ``user`` is its access key and ``password`` its secret key."""
    secret = secrets.token_hex(16)
    identity = {
        "name": "server",
        "credentials": [{"accessKey": _BUCKET_KEY, "secretKey": secret}],
        "actions": ["Admin"],
    }
    return _start(
        "inferenceserver/s3:1",
        ["server", "-dir=/data", "-s3", "-s3.port=8333", "-s3.config=/run/secrets/s3.json"],
        port=8333,
        user=_BUCKET_KEY,
        password=secret,
        url="http://{host}:{port}",
        files={"s3.json": json.dumps({"identities": [identity]})},
        environment={},
        answers=_store_answers,
    )


def rabbitmq_hash(password: str) -> str:
    """The salted SHA-256 that RabbitMQ keeps of a password."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _start(
    image: str,
    command: list[str],
    *,
    port: int,
    user: str,
    password: str,
    url: str,
    files: dict[str, str],
    environment: dict[str, str],
    answers: Callable[[Part], bool],
    places: dict[str, str] | None = None,
) -> Part:
    client = docker.from_env()
    folder = tempfile.TemporaryDirectory(prefix="inferenceserver-part-")
    mounts = {}
    for name, text in files.items():
        file = Path(folder.name, name)
        file.write_text(text)
        file.chmod(0o400)
        os.chown(file, _UID, _UID)
        mounts[str(file)] = {"bind": (places or {}).get(name, f"/run/secrets/{name}"), "mode": "ro"}
    # A port of our own choice: one that the engine chooses would be another after each restart.
    for _ in range(5):
        published = _free_port()
        try:
            container = client.containers.run(
                image,
                command,
                detach=True,
                ports={f"{port}/tcp": ("127.0.0.1", published)},
                volumes=mounts,
                environment=environment,
                labels={LABEL: "1"},
            )
            break
        except APIError as error:
            if "port is already allocated" not in str(error) and "address already in use" not in str(error):
                raise
    address = url.format(user=user, password=urllib.parse.quote(password), host="127.0.0.1", port=published)
    part = Part(container.id, "127.0.0.1", published, user, password, address, answers, folder, client)
    try:
        part.wait_ready()
    except BaseException:
        print(part.logs())
        part.remove()
        raise
    return part


def _succeeds(part: Part, command: list[str]) -> bool:
    try:
        part.exec(command)
    except (AssertionError, APIError):
        return False
    return True


def _broker_answers(part: Part) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(f"{part.url}?socket_timeout=2")).close()
    except pika.exceptions.AMQPError:
        return False
    return True


def _store_answers(part: Part) -> bool:
    # Its front says that it is well before those behind it have started.
    client = Minio(
        f"{part.host}:{part.port}",
        part.user,
        part.password,
        secure=False,
        http_client=urllib3.PoolManager(timeout=5, retries=False),
    )
    try:
        client.bucket_exists("is-anybody-there")
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
    return True


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
