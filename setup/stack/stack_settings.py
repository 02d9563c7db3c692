"""What the full stack is told: compose.yaml's variables, chosen once and kept in `.state/stack.env`. Pure.

A variable of the environment counts before what was remembered, and that before the default. What is
remembered makes `make stack-down` find what `make stack-up` started, and is what people give to compose by
hand.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from setup.console import SetupError
from setup.images import part_images, service_images

# Our own user in all images.
SERVICE_USER = "10001:10001"
DEFAULTS = {"BROKER_NODES": "1", "HTTPS_PORT": "8443", "HTTP_PORT": "8079", "PUBLISH_ADDRESS": "127.0.0.1"}
# With two, either's end would be the end of both: a majority of two is two.
BROKER_NODES = ("1", "3")
# What compose.yaml has a variable for, beside those above, with a default of its own.
OPTIONAL = (
    "COMPOSE_PROFILES", "GRAFANA_IMAGE", "GRAFANA_PORT", "MONITORING_ADDRESS", "NODE_NAME",
    "PROMETHEUS_IMAGE", "PROMETHEUS_PORT", "PROXY_ACME_CA", "TLS_CHECKS", "TRUSTED_PROXIES",
)  # fmt: skip
# What an operator may set for our services; each of them checks its own.
OF_SERVICES = (
    "BLOB_PUBLIC_URL", "CLAIM_WAIT_SECONDS", "CONTAINER_RUNTIME", "CONTENT_UNUSED_SECONDS", "CPU_SLOTS",
    "DATABASE_CONNECTIONS", "DISK_HIGH_PERCENT", "DISK_LOW_PERCENT", "DRAIN_SECONDS", "FETCH_SECONDS",
    "GPUS", "GPU_PROBE_IMAGE", "INPUT_RETENTION_SECONDS", "LOG_RETENTION_SECONDS", "MAX_CONTENT_BYTES",
    "MAX_INPUT_BYTES", "MAX_UNPACKED_BYTES", "MAX_UPLOAD_BYTES", "MAX_ZIP_ENTRIES", "MINIMUM_FREE_BYTES",
    "MIN_FREE_BYTES", "NODE_LABELS", "OUTPUT_RETENTION_SECONDS", "PRIVATE_API_HELD_CLAIMS",
    "PRIVATE_API_HELD_REQUESTS", "PRIVATE_API_THREADS", "PRIVATE_API_WORKERS", "PUBLIC_API_ACCESS_LOG",
    "PUBLIC_API_BULK_TRANSFERS", "PUBLIC_API_FAILED_KEYS_PER_MINUTE", "PUBLIC_API_STALL_SECONDS",
    "PUBLIC_API_WAITING_CALLS", "PUBLIC_API_WORKERS", "PUBLIC_API_WORKER_ROUTES", "PULL_SECONDS",
    "QUEUED_LIMIT_SECONDS", "RETENTION_SECONDS", "START_PATIENCE_SECONDS", "UPLOAD_SECONDS",
    "USERS_REGISTER_MODELS", "WRITABLE_LAYER_BYTES",
)  # fmt: skip
# The makers' images, as in compose.yaml (a test holds them together), and what ours are called.
UPSTREAM = {
    "POSTGRES_IMAGE": "postgres:17.11-bookworm",
    "RABBITMQ_IMAGE": "rabbitmq:4.3.6",
    "STORE_IMAGE": "chrislusf/seaweedfs:4.48",
    "PROXY_IMAGE": "caddy:2.11.4",
}
LOCAL = {
    "POSTGRES_IMAGE": part_images.POSTGRES.tag,
    "RABBITMQ_IMAGE": part_images.RABBITMQ.tag,
    "STORE_IMAGE": part_images.STORE.tag,
    "PROXY_IMAGE": part_images.CADDY.tag,
}
# The user who owns the data directory in the upstream store's image.
UPSTREAM_STORE_USER = "1000:1000"


class Source(StrEnum):
    """Where the images of third parties come from."""

    UPSTREAM = "upstream"
    LOCAL = "local"


@dataclass(frozen=True)
class Chosen:
    """The settings of one stack. ``values`` is all of compose.yaml's variables that have a value."""

    values: Mapping[str, str]

    @property
    def project(self) -> str:
        """Compose's name for the stack, in the names of its containers, networks and volumes."""
        return self.values["COMPOSE_PROJECT_NAME"]

    @property
    def installation(self) -> str:
        """What the consumer labels its containers with."""
        return self.values["INSTALLATION"]

    @property
    def https_port(self) -> int:
        """The port that people use."""
        return int(self.values["HTTPS_PORT"])

    @property
    def has_broker_cluster(self) -> bool:
        """Whether the broker has three nodes; a stack that an older release started has one."""
        return self.values.get("BROKER_NODES", "1") != "1"

    @property
    def store_user(self) -> tuple[int, int]:
        """Whom the store's container runs as."""
        uid, _, gid = self.values["STORE_USER"].partition(":")
        return int(uid), int(gid or uid)

    @property
    def address(self) -> str:
        """Where people on this machine reach the server."""
        return f"https://localhost:{self.https_port}"


def choose(
    environment: Mapping[str, str],
    remembered: Mapping[str, str],
    *,
    installation: str,
    state: str,
    docker_socket: str,
    source: Source,
    version: str,
) -> Chosen:
    """All settings of the stack; raises ``SetupError`` that names the variable at fault."""

    def pick(name: str, default: str) -> str:
        return environment.get(name) or remembered.get(name) or default

    values = {
        "COMPOSE_PROJECT_NAME": f"inferenceserver-{installation}",
        # Not the embedded server's: each must be able to tell its own containers from the other's.
        "INSTALLATION": f"{installation}-stack",
        "STATE_DIRECTORY": state,
        "IMAGES": source.value,
        "DOCKER_SOCKET": pick("DOCKER_SOCKET", docker_socket),
    }
    values |= {name: pick(name, default) for name, default in DEFAULTS.items()}
    values |= {name: text for name in (*OPTIONAL, *OF_SERVICES) if (text := pick(name, ""))}
    _check_address(values["PUBLISH_ADDRESS"])
    if values["BROKER_NODES"] not in BROKER_NODES:
        raise SetupError(f"BROKER_NODES must be 1 or 3, not {values['BROKER_NODES']!r}.")
    ports = {name: read_port(name, values[name]) for name in ("HTTPS_PORT", "HTTP_PORT")}
    if ports["HTTPS_PORT"] == ports["HTTP_PORT"]:
        raise SetupError(f"HTTPS_PORT and HTTP_PORT are both {ports['HTTPS_PORT']}; they must differ.")
    images = UPSTREAM if source is Source.UPSTREAM else LOCAL
    store_user = UPSTREAM_STORE_USER if source is Source.UPSTREAM else SERVICE_USER
    defaults = {**images, "STORE_USER": store_user}
    for service in service_images.ALL:
        defaults[f"{service.name.replace('-', '_').upper()}_IMAGE"] = service.tag(version)
    # An image that somebody named stays; our own choice is made anew, for a newer release pins newer ones.
    kept = {name: remembered.get(name, "") for name in remembered.get("NAMED_BY_HAND", "").split()}
    named = {name: text for name in defaults if (text := environment.get(name) or kept.get(name, ""))}
    values |= {**defaults, **named, "NAMED_BY_HAND": " ".join(named)}
    if not re.fullmatch(r"[0-9]+(:[0-9]+)?", values["STORE_USER"]):
        raise SetupError(f"STORE_USER must be UID:GID in numbers, not {values['STORE_USER']!r}.")
    for name, value in values.items():
        if re.search(r"[\n\r'\"\\$#]|^\s|\s$", value):
            raise SetupError(f"{name} holds a character that a settings file cannot: {value!r}.")
    return Chosen(values)


def read_port(name: str, text: str) -> int:
    """The number in a port's variable."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise SetupError(f"{name} must be a port from 1 to 65535, not {text!r}.")
    return int(text)


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise SetupError(
            f"PUBLISH_ADDRESS must be an address of this machine, such as 127.0.0.1 or 0.0.0.0, not {text!r}."
        ) from error


def read_source(text: str) -> Source | None:
    """What `IMAGES=` asks for; None when it leaves that open."""
    if text not in {"", *Source}:
        raise SetupError(f"IMAGES must be {' or '.join(Source)}, not {text!r}.")
    return Source(text) if text else None


def render(chosen: Chosen) -> str:
    """The text of stack.env, as compose reads it."""
    lines = [
        "# Made by `make stack-up`, which reads it again; a variable of its environment replaces a line."
    ]
    return "\n".join([*lines, *(f"{name}={value}" for name, value in sorted(chosen.values.items()))]) + "\n"


def render_services(chosen: Chosen) -> str:
    """The text of services.env, which each of our services is given whole."""
    lines = [f"{name}={chosen.values[name]}" for name in OF_SERVICES if name in chosen.values]
    return (
        "\n".join(["# Made by `make stack-up`; what is set here is what its environment said.", *lines])
        + "\n"
    )


def parse(text: str) -> dict[str, str]:
    """The settings in the text of a stack.env."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
