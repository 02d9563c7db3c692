"""What we need of a container engine, as types: the surface that the rest of the consumer sees.

``docker_engine.py`` provides it over Docker's API, the tests' fake provides it in memory, and one contract
test holds both to this description. Container bodies are those of Docker's HTTP API (``POST
/containers/create``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

# Volumes' `type=none` binds, `init`, device requests and `next-exit` are all there since this version.
MINIMUM_API_VERSION = (1, 41)


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """Which engine answers: ``api_version`` as numbers, ``architecture`` in Go's words (amd64, arm64)."""

    version: str
    api_version: tuple[int, int]
    os: str
    architecture: str


@dataclass(frozen=True, kw_only=True)
class EngineHost:
    """The machine that the engine runs on: its name, and where the engine keeps images and volumes there.

    ``architecture`` is the kernel's word (x86_64, aarch64). ``now`` is its clock, a Unix time: that of
    ``ContainerFacts.started_at``, which need not be ours.
    """

    name: str
    data_root: str
    cpus: int = 0
    memory_bytes: int = 0
    architecture: str = ""
    engine_version: str = ""
    now: float | None = None
    # What whoever runs the engine calls it (dockerd's `--label`).
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class LocalImage:
    """An image that the engine has. ``digests`` are ``repository@sha256:…``, none for local builds."""

    image_id: str
    digests: tuple[str, ...] = ()
    # Paths that the image declares as volumes.
    volumes: tuple[str, ...] = ()
    # All its layers, also those that other images have too.
    size_bytes: int = 0
    # The names of the environment variables that it brings.
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mount:
    """What a container has at ``destination``: ``source`` is a path on the engine's machine.

    ``kind`` is Docker's word: ``bind`` and ``volume`` have such a path, ``tmpfs`` has none.
    """

    kind: str
    source: str
    destination: str


@dataclass(frozen=True, kw_only=True)
class ContainerFacts:
    """A container as the engine sees it now. ``started_at`` is a Unix time, null before its start."""

    container_id: str
    state: str
    exit_code: int
    oom_killed: bool
    started_at: float | None
    labels: Mapping[str, str] = field(default_factory=dict)
    # Where its writable layer lies on the engine's machine, when the storage driver says so.
    upper_directory: str | None = None
    mounts: tuple[Mount, ...] = ()
    # The id of the image that it was made of.
    image_id: str = ""

    @property
    def started(self) -> bool:
        """Whether its program has ever run."""
        return self.started_at is not None

    @property
    def running(self) -> bool:
        """Whether its program still runs."""
        return self.state in {"running", "paused", "restarting"}


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A container (by id) or volume (by name) in a listing."""

    name: str
    labels: Mapping[str, str]
    # The name that it was given when it was made; of a volume the same as ``name``.
    given_name: str


class ExitWatch(Protocol):
    """A promise to report the exit of one container, already known to the engine."""

    def result(self) -> int:
        """Block until the exit and return its code; raises ``EngineError``."""
        ...

    def close(self) -> None:
        """Nobody will ask for the result."""
        ...


class LogStream(Protocol):
    """The log of one container as pieces of bytes, until the container has ended or ``close`` is called."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """End the iteration from another thread."""
        ...


class Engine(Protocol):
    """The container engine. Every method raises ``EngineAwayError`` when it cannot be reached."""

    def facts(self) -> EngineFacts:
        """Which engine this is."""
        ...

    def host(self) -> EngineHost:
        """The machine that it runs on."""
        ...

    def find_image(self, reference: str) -> LocalImage | None:
        """The local image with this tag, digest or id."""
        ...

    def image_ids(self) -> set[str]:
        """The ids of all images that it has."""
        ...

    def image_names(self) -> set[str]:
        """The tags of all images that it has."""
        ...

    def remove_image(self, reference: str) -> None:
        """Take this name from its image, and remove the image with its last name; one that has gone is fine.

        Raises ``RefusedError`` while any container, running or not, uses it.
        """
        ...

    def import_image(self, archive: bytes, repository: str, tag: str, changes: list[str]) -> None:
        """Make an image of a tar archive of its root file system."""
        ...

    def pull_image(self, reference: str, abandoned: Event) -> None:
        """Fetch an image.

        Raises ``NotFoundError`` or ``RefusedError`` with the registry's words, and ``AbandonedError`` within
        a minute of being told so.
        """
        ...

    def create_container(self, body: Mapping[str, Any], name: str | None = None) -> str:
        """Create it and return its id; raises ``RefusedError`` when the engine finds fault with the body."""
        ...

    def start_container(self, container_id: str) -> None:
        """Start it; raises ``RefusedError`` with the runtime's words."""
        ...

    def watch_exit(self, container_id: str, *, before_start: bool = False) -> ExitWatch:
        """Register for its exit; once this returns no exit can be missed."""
        ...

    def find_container(self, name_or_id: str) -> ContainerFacts | None:
        """How it stands."""
        ...

    def layer_bytes(self, container_id: str) -> int:
        """How much it has written to its writable layer; the engine counts anew each time."""
        ...

    def signal_container(self, container_id: str, signal: str) -> None:
        """Send its first process a signal; one that has ended or gone is left alone."""
        ...

    def was_signaled(self, container: ContainerFacts) -> bool:
        """Whether somebody had the engine send it a signal since it was started."""
        ...

    def memory_kills(self) -> int:
        """How many processes the kernel of its machine has killed for want of memory, in any container."""
        ...

    def remove_container(self, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes; one that has gone is fine."""
        ...

    def list_containers(self, labels: Mapping[str, str]) -> list[Labelled]:
        """All containers, running or not, that carry these labels."""
        ...

    def create_volume(self, name: str, device: str, labels: Mapping[str, str]) -> None:
        """Make a named volume of the local driver that shows the directory ``device``."""
        ...

    def remove_volume(self, name: str) -> None:
        """Remove it (never what its directory holds); one that has gone is fine.

        Raises ``RefusedError`` while any container, running or not, has it.
        """
        ...

    def list_volumes(self, labels: Mapping[str, str]) -> list[Labelled]:
        """All volumes that carry these labels."""
        ...

    def ensure_network(self, name: str, labels: Mapping[str, str], options: Mapping[str, str]) -> str:
        """The id of the bridge network with this name, made with these driver options where it is missing."""
        ...

    def remove_network(self, name: str) -> None:
        """Remove it; one that has gone is fine, and one that is in use is left."""
        ...

    def follow_logs(self, container_id: str) -> LogStream:
        """Its log from the very beginning, then as it grows."""
        ...

    def tail_logs(self, container_id: str, lines: int) -> bytes:
        """The last lines of its log."""
        ...

    def read_file(self, container_id: str, path: str) -> bytes:
        """One small file of a container, running or not, as the container would see it."""
        ...
