"""A container engine in memory; the integration tests' engine contract holds it to the real one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from consumer.outside.engine import ContainerFacts, EngineFacts, EngineHost, Labelled, LocalImage, Mount
from consumer.outside.errors import AbandonedError, EngineAwayError, NotFoundError, RefusedError

# What a container's program does: it gets its container and returns its exit code.
Program = Callable[["FakeContainer"], int]


@dataclass
class FakeContainer:
    """A container whose program is a function on a thread."""

    facts: ContainerFacts
    name: str | None
    body: Mapping[str, Any]
    volumes: Mapping[str, str]
    log: bytearray = field(default_factory=bytearray)
    signals: list[str] = field(default_factory=list)
    ended: Event = field(default_factory=Event)
    killed: Event = field(default_factory=Event)
    watched: bool = False

    def directory(self, target: str) -> Path:
        """What the container sees at ``target``, on our side."""
        [volume] = [
            mount["Source"] for mount in self.body["HostConfig"]["Mounts"] if mount["Target"] == target
        ]
        return Path(self.volumes[volume])


class FakeEngine:
    """``consumer.outside.engine.Engine``; ``away`` makes every call fail."""

    def __init__(
        self,
        *,
        images: Mapping[str, LocalImage] | None = None,
        registry: Mapping[str, LocalImage] | None = None,
        program: Program = lambda _container: 0,
    ) -> None:
        self.images = dict(images or {})
        self.registry = dict(registry or {})
        self.program = program
        self.pulled: list[str] = []
        self.containers: dict[str, FakeContainer] = {}
        self.volumes: dict[str, tuple[str, dict[str, str]]] = {}
        self.networks: dict[str, str] = {}
        # Where this engine would keep its images; empty: nowhere to be seen.
        self.data_root = ""
        # Its clock.
        self.now: float | None = None
        self.away = False
        self.labels: tuple[tuple[str, str], ...] = ()
        self.oom_killed = False
        self.kernel_kills = 0
        self.refuse_start: str | None = None
        self._numbers = itertools.count(1)

    def facts(self) -> EngineFacts:
        self._answer()
        return EngineFacts(version="fake", api_version=(1, 41), os="linux", architecture="amd64")

    def host(self) -> EngineHost:
        self._answer()
        return EngineHost(
            name="fake", data_root=self.data_root, cpus=4, memory_bytes=8 * 1024**3, architecture="x86_64",
            engine_version="fake", now=self.now, labels=self.labels,
        )  # fmt: skip

    def find_image(self, reference: str) -> LocalImage | None:
        self._answer()
        by_id = {image.image_id: image for image in self.images.values()}
        return self.images.get(reference) or by_id.get(reference)

    def image_ids(self) -> set[str]:
        self._answer()
        return {image.image_id for image in self.images.values()}

    def image_names(self) -> set[str]:
        self._answer()
        return set(self.images)

    def remove_image(self, reference: str) -> None:
        self._answer()
        image = self.find_image(reference)
        if image is not None and self._uses_image(image.image_id):
            raise RefusedError(409, f"conflict: a container uses {reference}")
        self.images.pop(reference, None)

    def import_image(self, archive: bytes, repository: str, tag: str, changes: list[str]) -> None:
        self._answer()
        self.images[f"{repository}:{tag}"] = LocalImage(image_id=f"sha256:{repository}{tag}")

    def pull_image(self, reference: str, abandoned: Event) -> None:
        self._answer()
        if abandoned.is_set():
            raise AbandonedError("the pull is no longer wanted")
        self.pulled.append(reference)
        if reference not in self.registry:
            raise NotFoundError(f"manifest for {reference} not found: manifest unknown")
        self.images[reference] = self.registry[reference]

    def create_container(self, body: Mapping[str, Any], name: str | None = None) -> str:
        self._answer()
        if self.find_image(body["Image"]) is None:
            raise NotFoundError(f"No such image: {body['Image']}")
        if name is not None and self._by(name) is not None:
            raise RefusedError(409, f"The container name {name} is already in use")
        container_id = f"{next(self._numbers):064x}"
        mounts = body.get("HostConfig", {}).get("Mounts") or ()
        facts = ContainerFacts(
            container_id=container_id, state="created", exit_code=0, oom_killed=False, started_at=None,
            labels=body.get("Labels") or {}, image_id=body["Image"],
            mounts=tuple(Mount(kind=m["Type"], source=m["Source"], destination=m["Target"]) for m in mounts),
        )  # fmt: skip
        devices = {volume: device for volume, (device, _) in self.volumes.items()}
        self.containers[container_id] = FakeContainer(facts=facts, name=name, body=body, volumes=devices)
        return container_id

    def start_container(self, container_id: str) -> None:
        self._answer()
        container = self._known(container_id)
        if self.refuse_start:
            raise RefusedError(400, self.refuse_start)
        container.facts = replace(container.facts, state="running", started_at=1.0)
        threading.Thread(target=self._run, args=(container,), daemon=True).start()

    def watch_exit(self, container_id: str, *, before_start: bool = False) -> _FakeWatch:
        self._answer()
        return _FakeWatch(self._known(container_id))

    def find_container(self, name_or_id: str) -> ContainerFacts | None:
        self._answer()
        container = self._by(name_or_id)
        return None if container is None else container.facts

    def layer_bytes(self, container_id: str) -> int:
        self._answer()
        self._known(container_id)
        return 0

    def signal_container(self, container_id: str, signal: str) -> None:
        self._answer()
        container = self._by(container_id)
        if container is not None and container.facts.running:
            container.signals.append(signal)
            if signal == "SIGKILL":
                container.killed.set()

    def was_signaled(self, container: ContainerFacts) -> bool:
        self._answer()
        return bool(self._known(container.container_id).signals)

    def memory_kills(self) -> int:
        return self.kernel_kills

    def remove_container(self, container_id: str) -> None:
        self._answer()
        container = self._by(container_id)
        if container is not None:
            container.killed.set()
            del self.containers[container.facts.container_id]

    def list_containers(self, labels: Mapping[str, str]) -> list[Labelled]:
        self._answer()
        return [
            Labelled(name=container_id, labels=container.facts.labels, given_name=container.name or "")
            for container_id, container in self.containers.items()
            if labels.items() <= dict(container.facts.labels).items()
        ]

    def create_volume(self, name: str, device: str, labels: Mapping[str, str]) -> None:
        self._answer()
        self.volumes.setdefault(name, (device, dict(labels)))

    def remove_volume(self, name: str) -> None:
        self._answer()
        for container in self.containers.values():
            mounts = container.body.get("HostConfig", {}).get("Mounts") or ()
            if any(mount["Source"] == name for mount in mounts):
                raise RefusedError(409, f"volume {name} is in use")
        self.volumes.pop(name, None)

    def list_volumes(self, labels: Mapping[str, str]) -> list[Labelled]:
        self._answer()
        return [
            Labelled(name=name, labels=own, given_name=name)
            for name, (_, own) in self.volumes.items()
            if labels.items() <= own.items()
        ]

    def ensure_network(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        self._answer()
        return self.networks.setdefault(name, f"id-of-{name}")

    def remove_network(self, name: str) -> None:
        self._answer()
        self.networks.pop(name, None)

    def follow_logs(self, container_id: str) -> _FakeStream:
        self._answer()
        return _FakeStream(self._known(container_id))

    def tail_logs(self, container_id: str, lines: int) -> bytes:
        self._answer()
        return b"".join(bytes(self._known(container_id).log).splitlines(keepends=True)[-lines:])

    def read_file(self, container_id: str, path: str) -> bytes:
        self._answer()
        target, _, name = path.rpartition("/")
        file = self._known(container_id).directory(target) / name
        if not file.is_file():
            raise NotFoundError(path)
        return file.read_bytes()

    def _uses_image(self, image_id: str) -> bool:
        images = (self.find_image(container.body["Image"]) for container in self.containers.values())
        return any(image is not None and image.image_id == image_id for image in images)

    def _run(self, container: FakeContainer) -> None:
        code = self.program(container)
        container.facts = replace(
            container.facts, state="exited", exit_code=137 if container.killed.is_set() else code,
            oom_killed=self.oom_killed,
        )  # fmt: skip
        container.ended.set()

    def _by(self, name_or_id: str) -> FakeContainer | None:
        for container in self.containers.values():
            if name_or_id in {container.name, container.facts.container_id}:
                return container
        return None

    def _known(self, container_id: str) -> FakeContainer:
        container = self._by(container_id)
        if container is None:
            raise NotFoundError(f"No such container: {container_id}")
        return container

    def _answer(self) -> None:
        if self.away:
            raise EngineAwayError("the engine is away")


class _FakeWatch:
    def __init__(self, container: FakeContainer) -> None:
        self._container = container

    def result(self) -> int:
        self._container.ended.wait()
        return self._container.facts.exit_code

    def close(self) -> None:
        """There is nothing to close."""


class _FakeStream:
    def __init__(self, container: FakeContainer) -> None:
        self._container = container
        self._closed = Event()

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while not self._closed.is_set():
            ended = self._container.ended.is_set()
            fresh = bytes(self._container.log[sent:])
            if fresh:
                sent += len(fresh)
                yield fresh
            elif ended:
                return
            else:
                self._container.ended.wait(0.01)

    def close(self) -> None:
        self._closed.set()
