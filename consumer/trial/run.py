"""One run of a model on a sample: a real attempt in a real sandbox, and everything that was seen of it.

``setup/model_test/`` enters, once for each profile. Whatever the run made on the engine is gone when this
returns; the log and the output stay in the folder that it was given.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from archives.errors import ArchiveError
from archives.limits import ZipLimits
from archives.unpacking import unpack
from consumer.attempt.progress import parse_progress
from consumer.attempt.run import Attempt
from consumer.attempt.sandbox import PROGRESS_DIRECTORY, PROGRESS_FILE, TEMPORARY_DIRECTORY
from consumer.bootstrap import build_station
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.node.station import Station
from consumer.node.usage import measure
from consumer.node.workspace import Workspace, remove_tree
from consumer.outside import labels
from consumer.outside.backoff import delays
from consumer.outside.errors import EngineError
from consumer.outside.inspecting_engine import ImageDetails, InspectingEngine
from consumer.trial.folder import Folder, zip_facts
from consumer.trial.senses import NetworkCalls, Senses
from contracts.messages import (
    ImageSpec,
    Lease,
    Limits,
    MountPoints,
    PullPolicy,
    Sandbox,
    SandboxProfile,
)
from contracts.reasons import ReasonCode

_log = logging.getLogger(__name__)

# Threads of the attempt that may still write into its workspace.
_SETTLE_SECONDS = 10.0
# The engine puts these into every container; /sbin is a link to /usr/sbin in many images.
_ENGINE_PATHS = (
    "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", "/proc", "/sys",
    "/sbin/docker-init", "/usr/sbin/docker-init",
)  # fmt: skip
_HOLDER_TRIES = 5
# As much of a progress file as is looked through for lines that say nothing.
_PROGRESS_BYTES = 1024**2
_ANY_ZIP = ZipLimits(max_entries=10_000_000, max_unpacked_bytes=2**50, max_ratio=float("inf"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is tried, on what, and within which limits. ``gpu`` is a UUID; the zips are read only."""

    tag: str
    image: ImageDetails
    limits: Limits
    mounts: MountPoints
    input_zip: Path
    content_zip: Path | None = None
    gpu: str | None = None
    network: bool = False


@dataclass(frozen=True, kw_only=True)
class ProgressLines:
    """What the model said about its progress: lines that the server understands, and one that it does not."""

    valid: int = 0
    invalid: int = 0
    first_invalid: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was seen of one run. ``code`` is null for success; ``files`` are the output's, by path."""

    profile: SandboxProfile
    code: ReasonCode | None
    sentence: str
    exit_code: int | None
    seconds: float
    peak_memory_bytes: int | None = None
    # Null where the kernel's counters cannot be seen from here.
    network: NetworkCalls | None = None
    # Outside the mounts and /tmp; known for the compatible profile only, since strict refuses them.
    changed_paths: tuple[str, ...] = ()
    progress: ProgressLines = field(default_factory=ProgressLines)
    log: str = ""
    files: dict[str, int] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether production would have committed its output."""
        return self.code is None


def try_model(
    engine: InspectingEngine,
    plan: Plan,
    profile: SandboxProfile,
    directory: Path,
    show: Callable[[bytes], None],
) -> Run:
    """Run the model once; ``directory`` exists and is empty, and keeps ``log.txt`` and ``output/``.

    ``show`` is given the log as it comes. Raises ``EngineError``.
    """
    folder = Folder(directory, plan.input_zip, plan.content_zip, show)
    work = directory / "work"
    slot = Slot(name="trial", gpu=plan.gpu)
    station = build_station(_settings(work), slot, engine=engine, server=folder)
    workspace = station.workspaces.named(secrets.token_hex(8))
    senses = Senses(engine)
    try:
        seen = _run(station, _lease(plan, profile), workspace, senses, plan.image.volumes)
        return _seen(seen, folder, profile, directory)
    finally:
        senses.close()
        engine.on_start = lambda _container_id: None
        try:
            _remove_all(station)
        finally:
            remove_tree(work)


@dataclass(frozen=True, kw_only=True)
class _Traces:
    """What can be seen only before the clean-up."""

    senses: Senses
    changed_paths: tuple[str, ...]
    progress: bytes
    left_files: int


def _run(
    station: Station, lease: Lease, workspace: Workspace, senses: Senses, volumes: tuple[str, ...]
) -> _Traces:
    engine = station.engine
    assert isinstance(engine, InspectingEngine)  # noqa: S101 - For the type checker: we passed it in.
    holder = _holder(station)
    if lease.sandbox.profile is SandboxProfile.STRICT:
        # The holder outlives the shortest model, and with it the counters of their common namespace.
        senses.feel_network(holder)
    engine.on_start = senses.begin
    station.workspaces.create(workspace)
    attempt = Attempt(station, lease, workspace, holder)
    try:
        attempt.run()
    finally:
        attempt.settle(_SETTLE_SECONDS)
    # What the image declares as a volume is a file system of its own, never the writable layer.
    mounts = (lease.mounts.input, lease.mounts.output, lease.mounts.model, PROGRESS_DIRECTORY)
    ours = (*mounts, *(volume.rstrip("/") for volume in volumes))
    changed = () if lease.sandbox.profile is SandboxProfile.STRICT else _changed(engine, workspace, ours)
    return _Traces(
        senses=senses,
        changed_paths=changed,
        progress=_read_progress_file(workspace.progress / PROGRESS_FILE),
        left_files=measure(workspace.output, 2**60, 10_000_000).files,
    )


def _holder(station: Station) -> str:
    """The slot's holder; a busy engine may refuse it once, and a slot too would ask again."""
    for pause in islice(delays(), _HOLDER_TRIES - 1):
        try:
            return station.holder.ensure_running()
        except EngineError as error:
            _log.warning("not ready: %s", error, extra={"action": "trial_not_ready"})
            time.sleep(pause)
    return station.holder.ensure_running()


def _changed(engine: InspectingEngine, workspace: Workspace, ours: tuple[str, ...]) -> tuple[str, ...]:
    try:
        found = engine.changed_paths(workspace.container_name)
    except EngineError:
        # The container was never made.
        return ()
    places = (*ours, TEMPORARY_DIRECTORY, *_ENGINE_PATHS)
    # The engine makes the mount points, and so their parents, in the container's own layer.
    return tuple(
        path
        for path in found
        if not any(path == place or path.startswith(f"{place}/") for place in places)
        and not any(place.startswith(f"{path}/") for place in places)
    )


def _seen(traces: _Traces, folder: Folder, profile: SandboxProfile, directory: Path) -> Run:
    failure, completion = folder.failure, folder.completion
    durations = (failure or completion).durations if failure or completion else {}  # type: ignore[union-attr]
    return Run(
        profile=profile,
        code=failure.reason_code if failure else None if completion else ReasonCode.INTERNAL_ERROR,
        sentence=failure.reason if failure else "",
        exit_code=failure.exit_code if failure else completion.exit_code if completion else None,
        seconds=durations.get("running", 0.0),
        peak_memory_bytes=traces.senses.peak_memory_bytes,
        network=traces.senses.network_calls(),
        changed_paths=traces.changed_paths,
        progress=progress_lines(traces.progress),
        log=folder.log.read_text(encoding="utf-8", errors="replace"),
        files=_unpacked(folder, directory) if completion else {},
    )


def progress_lines(content: bytes) -> ProgressLines:
    """Judge each line of a progress file as the consumer would."""
    lines = [line for line in content.splitlines() if line.strip()]
    invalid = [line for line in lines if parse_progress(line) is None]
    first = invalid[0].decode("utf-8", "replace")[:120] if invalid else ""
    return ProgressLines(valid=len(lines) - len(invalid), invalid=len(invalid), first_invalid=first)


def _read_progress_file(path: Path) -> bytes:
    try:
        if path.is_symlink() or not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_PROGRESS_BYTES)
    except OSError:
        return b""


def _unpacked(folder: Folder, directory: Path) -> dict[str, int]:
    target = directory / "output"
    target.mkdir()
    try:
        unpack(folder.output, target, _ANY_ZIP)
    except ArchiveError as error:
        _log.warning("the output stays packed: %s", error, extra={"action": "output_kept_packed"})
    else:
        folder.output.unlink()
    files = (path for path in sorted(target.rglob("*")) if path.is_file())
    return {path.relative_to(target).as_posix(): path.stat().st_size for path in files}


def _settings(work: Path) -> Settings:
    """A consumer's settings with an installation of its own, so that nothing on the engine is mistaken."""
    return Settings.from_environment(
        {
            "CONSUMER_DIRECTORY": str(work),
            "INSTALLATION": f"model-test-{secrets.token_hex(4)}",
            "NODE_NAME": "model-test",
        }
    )


def _lease(plan: Plan, profile: SandboxProfile) -> Lease:
    image = ImageSpec(
        tag=plan.tag, image_id=plan.image.image_id, digest=None, pull_policy=PullPolicy.IF_MISSING
    )
    return Lease(
        lease_id="trial",
        token=1,
        lease_seconds=plan.limits.time_seconds,
        task_id=secrets.token_hex(16),
        attempt=1,
        model="trial",
        model_version=1,
        image=image,
        sandbox=Sandbox(profile=profile, network=plan.network, tmp_exec=False),
        use_gpu=plan.gpu is not None,
        mounts=plan.mounts,
        limits=plan.limits,
        allow_empty_output=False,
        input=zip_facts(plan.input_zip),
        content=zip_facts(plan.content_zip) if plan.content_zip else None,
    )


def _remove_all(station: Station) -> None:
    """Remove everything that carries this trial's installation."""
    engine, wanted = station.engine, {labels.INSTALLATION: station.owner.installation}
    # In reverse, and to its end: what the engine keeps must not keep the rest.
    with ExitStack() as remains:
        remains.callback(station.network.remove)
        for volume in engine.list_volumes(wanted):
            remains.callback(engine.remove_volume, volume.name)
        for container in engine.list_containers(wanted):
            remains.callback(engine.remove_container, container.name)
