"""The container engine, and what only a trial asks of it: an image's recipe, a container's memory, the paths
that it changed. ``consumer.trial`` enters; no slot ever does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from consumer.outside.docker_engine import DockerEngine, our_errors
from consumer.outside.errors import NotFoundError

_CREATED_BY_SHELL = "/bin/sh -c "
_NO_OPERATION = "#(nop) "


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One step of an image's recipe and what it added."""

    size_bytes: int
    made_by: str


@dataclass(frozen=True, kw_only=True)
class ImageDetails:
    """What an image says about itself. ``user`` is empty for root; ``layers`` are the largest first."""

    image_id: str
    size_bytes: int
    user: str
    program: tuple[str, ...]
    volumes: tuple[str, ...]
    has_health_check: bool
    layers: tuple[Layer, ...]

    @property
    def runs_as_root(self) -> bool:
        """Whether the image's own user is root."""
        return self.user.partition(":")[0] in {"", "0", "root"}


class InspectingEngine(DockerEngine):
    """``on_start`` is called with a container's id as soon as it has been started."""

    def __init__(self, docker_host: str | None = None) -> None:
        super().__init__(docker_host)
        self.on_start: Callable[[str], None] = lambda _container_id: None

    def start_container(self, container_id: str) -> None:
        """Start it, and say so."""
        super().start_container(container_id)
        self.on_start(container_id)

    def describe_image(self, reference: str) -> ImageDetails | None:
        """What the local image with this tag or id says about itself, None where there is none."""
        try:
            with our_errors():
                image = self._api.inspect_image(reference)
                history = self._api.history(image["Id"])
        except NotFoundError:
            return None
        config = image.get("Config") or {}
        test = (config.get("Healthcheck") or {}).get("Test") or ["NONE"]
        layers = [
            Layer(size_bytes=int(step.get("Size") or 0), made_by=_instruction(str(step.get("CreatedBy"))))
            for step in history
        ]
        return ImageDetails(
            image_id=image["Id"],
            size_bytes=int(image.get("Size") or 0),
            user=str(config.get("User") or ""),
            program=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
            volumes=tuple(sorted(config.get("Volumes") or {})),
            has_health_check=test[0] != "NONE",
            layers=tuple(sorted(layers, key=lambda layer: -layer.size_bytes)),
        )

    def process_id(self, container_id: str) -> int | None:
        """The number of its first process on the engine's machine, None when it has ended."""
        with our_errors():
            state = self._api.inspect_container(container_id)["State"]
        return int(state["Pid"]) or None

    def memory_bytes(self, container_id: str) -> int | None:
        """What it holds now, without file pages that the kernel may take back; None when it has ended."""
        with our_errors():
            answer = self._api.stats(container_id, stream=False, one_shot=True)
        memory = answer.get("memory_stats") or {}
        if "usage" not in memory:
            return None
        details = memory.get("stats") or {}
        # The names of version 1 and version 2 of control groups.
        cache = details.get("total_inactive_file", details.get("inactive_file", 0))
        return max(0, int(memory["usage"]) - int(cache))

    def changed_paths(self, container_id: str) -> list[str]:
        """What it added to or changed in its writable layer: files, and directories with none in them."""
        with our_errors():
            found = self._api.diff(container_id) or []
        paths = sorted(str(change["Path"]) for change in found)
        # A directory counts as changed when anything in it is; sorted, its first descendant follows it.
        return [
            path
            for path, following in zip(paths, [*paths[1:], ""], strict=True)
            if not following.startswith(f"{path}/")
        ]


def _instruction(created_by: str) -> str:
    """A step as its author wrote it; the classic builder wraps each."""
    text = created_by.removeprefix(_CREATED_BY_SHELL).strip()
    plain = text.removeprefix(_NO_OPERATION).strip() if text.startswith(_NO_OPERATION) else None
    if plain is not None:
        return plain
    return f"RUN {text}" if created_by.startswith(_CREATED_BY_SHELL) else text
