"""The real Caddy of the stack in a container, as confined as there, with its configuration rendered by us.

It shares the machine's network, so that its ports lie on loopback and stand-ins can be its upstreams.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import NotFound

from tests.rig.parts import LABEL
from tests.rig.polling import eventually

ROOT = Path(__file__).resolve().parents[3]
IMAGE = os.environ.get("CADDY_IMAGE", "inferenceserver/caddy:1")


def free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Proxy:
    """A running Caddy, and the command line beside it."""

    directory: Path
    environment: dict[str, str]
    https_port: int
    http_port: int
    admin_port: int
    container: Any = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def root_certificate(self) -> Path:
        return self.directory / "data/caddy/pki/authorities/local/root.crt"

    def command(
        self, *arguments: str, ok: bool = True, said: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python -m proxy`` with these arguments; its success is looked at unless ``ok`` is False."""
        done = subprocess.run(
            [sys.executable, "-m", "proxy", *arguments],
            cwd=ROOT,
            env={**self.environment, **settings},
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not ok or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def ask(
        self,
        method: str,
        target: str,
        *,
        name: str = "localhost",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        source: str = "127.0.0.1",
        verify: bool = True,
        timeout: float = 30,
    ) -> Answer:
        """One request over TLS to ``name``, whose certificate is looked at like a client would."""
        context = ssl.create_default_context(cafile=str(self.root_certificate)) if verify else no_look()
        with self.connect(name, context, source=source, timeout=timeout) as sock:
            connection = http.client.HTTPConnection(name, self.https_port)
            connection.sock = sock
            connection.request(method, target, body=body, headers=headers or {})
            response = connection.getresponse()
            answer = Answer(
                response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
            )
            connection.close()
        return answer

    def get(self, target: str, **arguments: Any) -> Answer:
        return self.ask("GET", target, **arguments)

    def connect(
        self,
        name: str | None = "localhost",
        context: ssl.SSLContext | None = None,
        *,
        source: str = "127.0.0.1",
        timeout: float = 30,
    ) -> ssl.SSLSocket:
        """A TLS connection on which nothing has been said."""
        if context is None:
            context = ssl.create_default_context(cafile=str(self.root_certificate))
        plain = socket.create_connection(
            ("127.0.0.1", self.https_port), timeout=timeout, source_address=(source, 0)
        )
        try:
            return context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def log(self) -> list[dict[str, Any]]:
        """What Caddy has logged."""
        lines = self.container.logs().decode().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def access_log(self) -> list[dict[str, Any]]:
        return [line for line in self.log() if str(line.get("logger", "")).startswith("http.log.access")]

    def start(self) -> None:
        """Start it, or start it again, and wait until it lives."""
        if self.container is None:
            self.container = docker.from_env().containers.run(
                IMAGE,
                ["caddy", "run", "--config", str(self.directory / "state/caddy.json")],
                detach=True,
                network_mode="host",
                user=f"{os.getuid()}:{os.getgid()}",
                read_only=True,
                # The upstream image's program carries this one in its file, and would not start without it.
                cap_drop=["ALL"],
                cap_add=["NET_BIND_SERVICE"],
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "size=16m"},
                volumes={
                    str(self.directory / "state"): {"bind": str(self.directory / "state"), "mode": "ro"},
                    str(self.directory / "data"): {"bind": "/data", "mode": "rw"},
                    str(self.directory / "config"): {"bind": "/config", "mode": "rw"},
                },
                labels={LABEL: "1"},
            )
        else:
            self.container.start()
        try:
            eventually(self._lives, 20, "Caddy lives and has its root certificate")
        except BaseException:
            print(self.container.logs(tail=60).decode(errors="replace"))
            raise

    def _lives(self) -> bool:
        self.container.reload()
        assert self.container.status == "running", self.container.status
        try:
            alive = requests.get(f"http://{self.environment['PROXY_LIVENESS_BIND']}/", timeout=2)
            # The certificate of localhost is made in the background.
            self.connect().close()
        except (OSError, requests.RequestException):
            return False
        return alive.status_code == 200

    def peak_bytes(self) -> int:
        """The most memory that Caddy has held."""
        self.container.reload()
        status = Path(f"/proc/{self.container.attrs['State']['Pid']}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024

    def remove(self) -> None:
        if self.container is not None:
            with suppress(NotFound):
                self.container.remove(force=True, v=True)
            self.container.client.close()


def no_look() -> ssl.SSLContext:
    """A client that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def running_proxy(directory: Path, upstreams: str, *, start: bool = True, **settings: str) -> Iterator[Proxy]:
    """A proxy in front of ``upstreams`` (HOST:PORT, …) with a root certificate of its own."""
    for name in ("state", "data", "config"):
        (directory / name).mkdir()
    https_port, http_port, admin_port, liveness_port = free_ports(4)
    environment = {
        "PATH": os.environ["PATH"],
        "PROXY_DIRECTORY": str(directory / "state"),
        "PUBLIC_API_UPSTREAMS": upstreams,
        "HTTPS_PORT": str(https_port),
        "PROXY_HTTPS_BIND": f"127.0.0.1:{https_port}",
        "PROXY_HTTP_BIND": f"127.0.0.1:{http_port}",
        "PROXY_ADMIN_API": f"127.0.0.1:{admin_port}",
        "PROXY_LIVENESS_BIND": f"127.0.0.1:{liveness_port}",
        **settings,
    }
    proxy = Proxy(directory, environment, https_port, http_port, admin_port)
    try:
        proxy.command("render")
        if start:
            proxy.start()
        yield proxy
    finally:
        proxy.remove()
