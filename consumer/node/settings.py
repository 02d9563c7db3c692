"""The consumer's settings: read from the environment once, checked, and never changed afterwards.

``__main__`` enters; nobody else reads the environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from consumer.node.way import way_to_server
from consumer.outside.errors import SettingsError
from contracts.announcements import BrokerAddress, broker_address

_Number = TypeVar("_Number", int, float)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_GPU = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9/-]{4,80}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that an operator may choose. Seconds and bytes."""

    # Where the server is: the private API itself, or for a worker outside the address that everybody uses.
    private_api_url: str
    worker_key_file: Path
    # Where the slots hear of tasks; None: they wait at the private API alone.
    broker: BrokerAddress | None
    directory: Path
    # What the engine's machine calls it; None: the same, unless we turn out to live in a container.
    host_directory: PurePosixPath | None
    installation: str
    node: str
    # None: as many as suit the machine.
    cpu_slots: int | None
    # None: ask the machine; empty: none.
    gpus: tuple[str, ...] | None
    docker_host: str | None
    # gVisor's runsc, say; None leaves the engine's own choice.
    container_runtime: str | None
    # A slot that is told to stop lets its task end within this time, then hands it back.
    drain_seconds: float
    # How long the server holds a claim. A slot that is told to stop withdraws it; where the server does not
    # hear that, this bounds how long an idle slot takes to stop.
    claim_wait_seconds: float
    # Limits of the phases in which the model itself does not run; its own run has the model's limit.
    pull_seconds: float
    fetch_seconds: float
    upload_seconds: float
    # Below this much free space on our file system, running models are stopped and tried again later.
    minimum_free_bytes: int
    # What a model of the compatible profile may write outside /output.
    writable_layer_bytes: int
    # When a disk is fuller than the first, images and contents go, least recently used first, until it is no
    # fuller than the second.
    disk_high_percent: float
    disk_low_percent: float
    # Contents that no task has used for so long go in any case.
    content_unused_seconds: float
    # How long a node that starts waits for an engine that is not there yet.
    start_patience_seconds: float
    # The image of the container that looks for GPUs; None: our own image in a container, else no container.
    gpu_probe_image: str | None = None
    # What models may ask of a node by name.
    node_labels: tuple[tuple[str, str], ...] = ()
    # A configuration as docker login writes it, for pulls from private registries.
    registry_credentials_file: Path | None = None
    # The authorities that a worker outside trusts, and nobody else; None: those of the system.
    server_ca: Path | None = None
    # The HTTP proxy of its own network that a worker outside goes through.
    server_proxy: str | None = None
    # Where the parent shows the metrics of all its processes: host and port. None: nowhere.
    metrics_bind: tuple[str, int] | None = None

    @property
    def leave_seconds(self) -> float:
        """How long a slot that is told to stop may be at its task, or at a claim that the server holds."""
        return max(self.drain_seconds, self.claim_wait_seconds)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check; raises ``SettingsError`` that names the variable at fault."""
        directory = Path(_text(environment, "CONSUMER_DIRECTORY", ".state/consumer")).resolve()
        host_directory = _host_directory(environment)
        # Two installations on one engine must never take each other's containers for their own leftovers, and
        # in containers they may well have the same path.
        own_id = hashlib.sha256(os.fsencode(host_directory or directory)).hexdigest()[:10]
        low, high = _watermarks(environment)
        way = way_to_server(environment)
        return cls(
            private_api_url=way.url,
            server_ca=way.ca,
            server_proxy=way.proxy,
            worker_key_file=Path(_text(environment, "WORKER_KEY_FILE", ".state/worker.key")).resolve(),
            broker=None if way.is_outside else _broker(environment),
            directory=directory,
            host_directory=host_directory,
            installation=_name(environment, "INSTALLATION", own_id),
            node=_name(environment, "NODE_NAME", socket.gethostname()),
            cpu_slots=_slots(environment),
            gpus=_gpus(environment),
            docker_host=environment.get("DOCKER_HOST") or None,
            container_runtime=environment.get("CONTAINER_RUNTIME") or None,
            drain_seconds=_number(environment, "DRAIN_SECONDS", 20.0, float),
            claim_wait_seconds=_number(environment, "CLAIM_WAIT_SECONDS", 25.0, float, most=60),
            pull_seconds=_number(environment, "PULL_SECONDS", 1800.0, float),
            fetch_seconds=_number(environment, "FETCH_SECONDS", 1800.0, float),
            upload_seconds=_number(environment, "UPLOAD_SECONDS", 3600.0, float),
            minimum_free_bytes=_number(environment, "MINIMUM_FREE_BYTES", 512 * 1024**2, int),
            writable_layer_bytes=_number(environment, "WRITABLE_LAYER_BYTES", 10 * 1024**3, int),
            disk_high_percent=high,
            disk_low_percent=low,
            content_unused_seconds=_number(environment, "CONTENT_UNUSED_SECONDS", 30 * 86400.0, float),
            start_patience_seconds=_number(environment, "START_PATIENCE_SECONDS", 120.0, float),
            gpu_probe_image=_text(environment, "GPU_PROBE_IMAGE", "") or None,
            node_labels=_labels(environment),
            registry_credentials_file=_file(environment, "REGISTRY_CREDENTIALS_FILE"),
            metrics_bind=_bind(environment),
        )


def _text(environment: Mapping[str, str], name: str, default: str) -> str:
    return environment.get(name, "").strip() or default


def _broker(environment: Mapping[str, str]) -> BrokerAddress | None:
    url = _text(environment, "BROKER_URL", "")
    if not url:
        return None
    password, file = environment.get("BROKER_PASSWORD", ""), _text(environment, "BROKER_PASSWORD_FILE", "")
    if password and file:
        raise SettingsError("BROKER_PASSWORD and BROKER_PASSWORD_FILE are both set; leave one out.")
    if file:
        try:
            password = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"BROKER_PASSWORD_FILE cannot be read: {error}.") from error
    try:
        return broker_address(url, password)
    except ValueError as error:
        raise SettingsError(f"BROKER_URL {error}.") from error


def _name(environment: Mapping[str, str], variable: str, default: str) -> str:
    name = _text(environment, variable, default)
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{variable} must be 1 to 63 letters, digits, dots, dashes and underscores, not {name!r}."
        )
    return name


def _host_directory(environment: Mapping[str, str]) -> PurePosixPath | None:
    text = _text(environment, "CONSUMER_HOST_DIRECTORY", "")
    if not text:
        return None
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts:
        raise SettingsError(f"CONSUMER_HOST_DIRECTORY must be an absolute path, not {text!r}.")
    return path


def _file(environment: Mapping[str, str], variable: str) -> Path | None:
    text = _text(environment, variable, "")
    return Path(text).resolve() if text else None


def is_label(name: str, value: str) -> bool:
    """Whether a model could ask for it."""
    return _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None


def _labels(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    for part in _text(environment, "NODE_LABELS", "").split(","):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not is_label(name, value):
            raise SettingsError(
                "NODE_LABELS must look like site=north,disk=ssd, each name and value of up to 63 letters, "
                f"digits, dots, dashes and underscores, and has {part.strip()!r}."
            )
        if name in labels:
            raise SettingsError(f"NODE_LABELS names {name} twice.")
        labels[name] = value
    return tuple(labels.items())


def _watermarks(environment: Mapping[str, str]) -> tuple[float, float]:
    high = _number(environment, "DISK_HIGH_PERCENT", 85.0, float, most=100)
    low = _number(environment, "DISK_LOW_PERCENT", max(0.0, high - 10), float, most=100)
    if low > high:
        raise SettingsError(
            f"DISK_LOW_PERCENT must not be above DISK_HIGH_PERCENT, which is {high:g}, and is {low:g}."
        )
    return low, high


def _bind(environment: Mapping[str, str]) -> tuple[str, int] | None:
    text = _text(environment, "METRICS_BIND", "")
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise SettingsError(f"METRICS_BIND must look like 127.0.0.1:9100, not {text!r}.")
    return host.strip("[]"), int(port)


def _slots(environment: Mapping[str, str]) -> int | None:
    if not environment.get("CPU_SLOTS", "").strip():
        return None
    return _number(environment, "CPU_SLOTS", 0, int, most=1024)


def _gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    text = _text(environment, "GPUS", "auto")
    if text == "auto":
        return None
    if text == "none":
        return ()
    uuids = tuple(uuid.strip() for uuid in text.split(",") if uuid.strip())
    for uuid in uuids:
        if not _GPU.fullmatch(uuid):
            raise SettingsError(f"GPUS must be auto, none, or GPU UUIDs with commas between, not {uuid!r}.")
    if len(set(uuids)) != len(uuids):
        raise SettingsError("GPUS names the same GPU twice.")
    return uuids


def _number(
    environment: Mapping[str, str],
    variable: str,
    default: _Number,
    kind: type[_Number],
    *,
    most: float = 2**50,
) -> _Number:
    text = _text(environment, variable, str(default))
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{variable} must be a number, not {text!r}.") from None
    # Written so that NaN fails it too.
    if not 0 <= value <= most:
        raise SettingsError(f"{variable} must lie between 0 and {most:g}, not {text}.")
    return value
