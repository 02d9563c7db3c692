"""How a model's container is made: a pure function from a lease and a slot to the engine's create body.

An attempt enters while it prepares; golden files pin the result. All that keeps a stranger's program in its
place is decided here and nowhere else. It never asks the engine anything.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from consumer.outside import labels
from consumer.outside.engine import LocalImage
from consumer.outside.labels import Owner
from contracts.messages import Lease, SandboxProfile
from contracts.names import ENV_INPUT, ENV_MODEL, ENV_OUTPUT, ENV_PROGRESS, ENV_TASK_ID

# Nobody: a user that owns nothing on any machine.
UNPRIVILEGED_USER = "65532:65532"
# A place that images do not use. The directory is a mount of its own, so that a model cannot put a link in
# our way.
PROGRESS_DIRECTORY = "/run/inferenceserver"
PROGRESS_FILE = "progress.jsonl"
TEMPORARY_DIRECTORY = "/tmp"  # noqa: S108 - A path inside the container, in a file system of its own.

# Models go before anything of the machine's own when memory runs out.
_OOM_SCORE = 500
# The engine keeps this many files of log, the current one included.
_LOG_FILES = 2
# What they may hold together, unless a model's own limit asks for more; and the most that a byte of log takes
# there.
_LOG_BYTES_OF_ALL = 1024**3
_JSON_PER_BYTE = 72
_MIB = 1024**2

# By these a container asks NVIDIA's runtime for devices, and an image may bring them: where that runtime is
# the engine's default, or takes part in every start, an image that says "all" would get all there are.
_VISIBLE_DEVICES, _DRIVER_CAPABILITIES = "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"
# Which of these counts as well is an administrator's choice (``swarm-resource`` of the runtime).
_RESOURCE_PREFIX = "DOCKER_RESOURCE_"
_NO_DEVICES = "void"
_CAPABILITIES = ("compute", "utility")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a container is put: its volumes, its network, its GPU, and as whom it may run."""

    owner: Owner
    workspace: str
    input_volume: str
    output_volume: str
    progress_volume: str
    model_volume: str | None
    # The container whose empty network namespace a strict model joins.
    holder: str
    # The network of models that may use one; set for those only.
    network: str | None = None
    gpu: str | None = None
    runtime: str | None = None
    # Set where the consumer is not root: it could neither fill nor remove what another user owns.
    forced_user: str | None = None
    # No engine can raise a limit above its own.
    open_files: int
    # The engine refuses a container that may use more processors than there are.
    cores: int = 1024


def container_body(lease: Lease, image: LocalImage, place: Place) -> dict[str, Any]:
    """The body of ``POST /containers/create`` (Docker's HTTP API) for one attempt."""
    strict = lease.sandbox.profile is SandboxProfile.STRICT
    body: dict[str, Any] = {
        # By id, never by tag: what was resolved and reported is what runs.
        "Image": image.image_id,
        "Env": _environment(lease, image, place, strict=strict),
        "Labels": _labels(lease, place),
        # The image's own health check would run programs that nobody waits for.
        "Healthcheck": {"Test": ["NONE"]},
        "AttachStdin": False,
        "Tty": False,
        "HostConfig": _host_config(lease, image, place, strict=strict),
    }
    user = place.forced_user or (UNPRIVILEGED_USER if strict else None)
    if user:
        body["User"] = user
    return body


def volume_fault(lease: Lease, image: LocalImage) -> str | None:
    """A sentence when a VOLUME of the image would hide what belongs into one of our mounts.

    One that is the mount itself is ours, one elsewhere becomes a file system of its own in memory.
    """
    ours = {"input": lease.mounts.input, "output": lease.mounts.output, "progress": PROGRESS_DIRECTORY}
    if lease.content is not None:
        ours["model"] = lease.mounts.model
    for declared in sorted(image.volumes):
        path = _normal(declared)
        if path == "/":
            return (
                f"The image declares VOLUME {declared}, the whole of its file system; remove that from its "
                "Dockerfile."
            )
        for part, mount in ours.items():
            if path.startswith(f"{_normal(mount)}/"):
                return (
                    f"The image declares VOLUME {declared}, which lies inside {mount}, where the {part} is "
                    "mounted, and would hide what is there; remove it from the Dockerfile."
                )
    return None


def _normal(path: str) -> str:
    """``path`` as the engine understands it: absolute, with no ``..``, doubled or trailing slash."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _gpu(lease: Lease, place: Place) -> str | None:
    """The GPU that the container gets: its slot's, and only a model that asks for one."""
    return place.gpu if lease.use_gpu else None


def _environment(lease: Lease, image: LocalImage, place: Place, *, strict: bool) -> list[str]:
    values = {
        ENV_INPUT: lease.mounts.input,
        ENV_OUTPUT: lease.mounts.output,
        ENV_MODEL: lease.mounts.model,
        ENV_TASK_ID: lease.task_id,
        ENV_PROGRESS: f"{PROGRESS_DIRECTORY}/{PROGRESS_FILE}",
    }
    if strict:
        # With a read-only root these are the only places where libraries may keep their caches. A
        # compatible image keeps its own HOME: weights that it brought along often lie there.
        values |= {"HOME": TEMPORARY_DIRECTORY, "TMPDIR": TEMPORARY_DIRECTORY}
    devices = _gpu(lease, place) or _NO_DEVICES
    values[_VISIBLE_DEVICES] = devices
    values |= {name: devices for name in image.variables if name.startswith(_RESOURCE_PREFIX)}
    if devices != _NO_DEVICES:
        values[_DRIVER_CAPABILITIES] = ",".join(_CAPABILITIES)
    return [f"{name}={value}" for name, value in values.items()]


def _labels(lease: Lease, place: Place) -> dict[str, str]:
    return place.owner.labels() | {
        labels.ROLE: labels.ROLE_MODEL,
        labels.WORKSPACE: place.workspace,
        labels.TASK: lease.task_id,
        labels.ATTEMPT: str(lease.attempt),
        labels.TOKEN: str(lease.token),
        **({labels.REQUEST: lease.request_id} if lease.request_id else {}),
    }


def _host_config(lease: Lease, image: LocalImage, place: Place, *, strict: bool) -> dict[str, Any]:
    limits = lease.limits
    config: dict[str, Any] = {
        "NetworkMode": _network_mode(place, strict=strict),
        "Mounts": _mounts(lease, place),
        "Tmpfs": _tmpfs(lease, image, place),
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": strict,
        "Init": True,
        "IpcMode": "private",
        # Engines on version 1 of control groups would show the machine's own.
        "CgroupnsMode": "private",
        "ShmSize": limits.shm_bytes,
        "PidsLimit": limits.pids,
        "Memory": limits.memory_bytes,
        # Memory and swap together: the same number means no swap.
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": round(min(limits.cpus, place.cores) * 1e9),
        "Ulimits": _ulimits(lease, place.open_files),
        "OomScoreAdj": _OOM_SCORE,
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(_log_file_bytes(limits.log_bytes)), "max-file": str(_LOG_FILES)},
        },
    }
    if place.runtime:
        config["Runtime"] = place.runtime
    gpu = _gpu(lease, place)
    if gpu is not None:
        config["DeviceRequests"] = [
            {"Driver": "", "DeviceIDs": [gpu], "Capabilities": [["gpu", *_CAPABILITIES]]}
        ]
    return config


def _network_mode(place: Place, *, strict: bool) -> str:
    if place.network is not None:
        return place.network
    # Whoever joins a namespace shares its owner's /etc/hosts, /etc/hostname and /etc/resolv.conf: with a
    # writable root a model could leave something there for the next one.
    return f"container:{place.holder}" if strict else "none"


def _mounts(lease: Lease, place: Place) -> list[dict[str, Any]]:
    wanted = [
        (place.input_volume, lease.mounts.input, True),
        (place.output_volume, lease.mounts.output, False),
        (place.progress_volume, PROGRESS_DIRECTORY, False),
        (place.model_volume, lease.mounts.model, True),
    ]
    return [
        {
            "Type": "volume",
            "Source": volume,
            "Target": target,
            "ReadOnly": read_only,
            # Otherwise the engine would fill an empty volume with what the image has at that path.
            "VolumeOptions": {"NoCopy": True},
        }
        for volume, target, read_only in wanted
        if volume is not None
    ]


def _tmpfs(lease: Lease, image: LocalImage, place: Place) -> dict[str, str]:
    execution = "exec" if lease.sandbox.tmp_exec else "noexec"
    options = f"rw,nosuid,nodev,{execution},size={lease.limits.tmp_bytes},mode=1777"
    # A path that the image declares as a volume would become a directory of any size on the node, which
    # nobody measures.
    paths = [TEMPORARY_DIRECTORY, *sorted({_normal(path) for path in image.volumes})]
    own = {_normal(mount["Target"]) for mount in _mounts(lease, place)}
    return {path: options for path in paths if path not in own}


def _ulimits(lease: Lease, open_files: int) -> list[dict[str, Any]]:
    # One file can never be larger than all that is allowed; a little more, so that whoever measures the
    # output sees that the limit was passed, not merely reached.
    file_bytes = max(lease.limits.output_bytes, lease.limits.tmp_bytes) + _MIB
    values = {"nofile": open_files, "core": 0, "fsize": file_bytes}
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in values.items()]


def _log_file_bytes(log_bytes: int) -> int:
    """Large enough that a worker that adopts the container can replay the log from its beginning.

    The engine throws the beginning away once all files are full. Its JSON makes 71 bytes of an empty line, so
    nothing is thrown away before the model's own limit where that is below 14 MiB; above, only lines of a few
    bytes could bring that about, and the node's disk is worth more.
    """
    bytes_of_all = max(min(_JSON_PER_BYTE * log_bytes, _LOG_BYTES_OF_ALL), 3 * log_bytes, 2 * _MIB)
    return -(-bytes_of_all // _LOG_FILES)
