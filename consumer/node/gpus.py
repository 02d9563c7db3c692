"""The GPUs of the engine's machine: their UUIDs, names and memory, as ``nvidia-smi`` tells them.

The parent process enters once, at start. Where the consumer is a container (a service of a Swarm above all,
which can be given no GPU) a sibling container that asks the engine for all of them tells; on the machine
itself the program is asked directly. What the answers mean is pure; nothing here hands a GPU to anybody.
"""

from __future__ import annotations

import logging
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from consumer.outside import labels
from consumer.outside.engine import Engine
from consumer.outside.errors import AbandonedError, EngineAwayError, EngineError
from consumer.outside.labels import Owner
from consumer.outside.wording import one_line
from contracts.nodes import GpuFacts

_log = logging.getLogger(__name__)

PROGRAM = "nvidia-smi"
LISTING = ("-L",)
TABLE = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")

# A driver that sleeps (no persistence mode) wakes each GPU first, which takes seconds for each.
_ASK_SECONDS = 60.0
_POLL_SECONDS = 0.1
_PULL_SECONDS = 300.0
# What an engine says to whom it cannot give any.
_NO_DRIVER = "could not select device driver"
_MIB = 1024**2

# `GPU 0: NVIDIA H100 (UUID: GPU-8f7e…)`, and below it `  MIG 1g.10gb Device 0: (UUID: MIG-…)`.
_LISTED = re.compile(r"^\s*(?P<name>.*?)\s*\(UUID:\s*(?P<uuid>(?:GPU|MIG)-[^\s)]+)\)")
_NUMBERED = re.compile(r"^GPU \d+:\s*")
_DEVICE = re.compile(r"\s+Device\s+\d+:$")
# The memory in a MIG profile's name, in gigabytes; what a device really has is a little more.
_PROFILE = re.compile(r"\d+g\.(?P<gigabytes>\d+)gb")

# Runs nvidia-smi with these arguments and returns what it wrote; None where it cannot.
Ask = Callable[[Sequence[str]], str | None]


def find_gpus(ask: Ask) -> tuple[GpuFacts, ...]:
    """The GPUs that ``ask`` tells of, none where it tells nothing."""
    listing = ask(LISTING)
    if listing is None or not parse_gpus(listing, ""):
        return ()
    return parse_gpus(listing, ask(TABLE) or "")


def parse_gpus(listing: str, table: str) -> tuple[GpuFacts, ...]:
    """The GPUs in what ``nvidia-smi`` prints; one that is cut into MIG devices counts as those.

    Memory is 0 where neither ``table`` (MiB) nor the name of a MIG profile tells it.
    """
    memory = _memory(table)
    found: list[GpuFacts] = []
    name_of_gpu = ""
    for line in listing.splitlines():
        listed = _LISTED.match(line)
        if listed is None:
            continue
        uuid = listed["uuid"]
        if uuid.startswith("MIG-"):
            if found and found[-1].uuid.startswith("GPU-"):
                found.pop()
            profile = _DEVICE.sub("", listed["name"])
            found.append(
                GpuFacts(
                    uuid=uuid, name=f"{name_of_gpu} {profile}".strip(), memory_bytes=_of_profile(profile)
                )
            )
        else:
            name_of_gpu = _NUMBERED.sub("", listed["name"])
            found.append(GpuFacts(uuid=uuid, name=name_of_gpu, memory_bytes=memory.get(uuid, 0)))
    return tuple(found)


def chosen_gpus(wanted: tuple[str, ...] | None, found: tuple[GpuFacts, ...]) -> tuple[GpuFacts, ...]:
    """What ``GPUS`` asks for of what was found: all, or those with these UUIDs, known or not."""
    if wanted is None:
        return found
    known = {gpu.uuid: gpu for gpu in found}
    for uuid in wanted:
        if found and uuid not in known:
            said = {"action": "gpu_unknown"}
            _log.warning("GPUS names %s, which this machine does not list", uuid, extra=said)
    return tuple(known.get(uuid, GpuFacts(uuid=uuid, name="", memory_bytes=0)) for uuid in wanted)


def ask_machine(arguments: Sequence[str]) -> str | None:
    """Run ``nvidia-smi`` here; None where it is missing or fails."""
    try:
        answer = subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


class Probe:
    """Asks in a sibling container of ``image`` that has all GPUs of the engine's machine, and no more."""

    def __init__(self, engine: Engine, owner: Owner, image: str) -> None:
        self._engine = engine
        self._owner = owner
        self._image = image

    def __call__(self, arguments: Sequence[str]) -> str | None:
        """What ``nvidia-smi`` wrote there; None, and one line of log, where there is none or no GPU.

        Raises ``EngineAwayError``.
        """
        try:
            return self._ask(arguments)
        except EngineAwayError:
            raise
        except (EngineError, AbandonedError) as error:
            if _NO_DRIVER in str(error):
                said = {"action": "no_gpus"}
                _log.info("no GPUs: the engine has no driver for any", extra=said)
            else:
                _say_failed(one_line(str(error), 300))
        return None

    def _ask(self, arguments: Sequence[str]) -> str | None:
        if self._engine.find_image(self._image) is None:
            self._pull()
        name = f"{self._owner.name}-probe-{secrets.token_hex(8)}"
        try:
            container_id = self._engine.create_container(self._body(arguments), name)
            self._engine.start_container(container_id)
            code = self._exit_code(container_id)
            written = self._engine.tail_logs(container_id, 1000).decode(errors="replace")
        finally:
            with suppress(EngineError):
                self._engine.remove_container(name)
        if code == 0:
            return written
        outcome = "did not end in time" if code is None else f"ended with {code}"
        _say_failed(f"{PROGRAM} {outcome}: {one_line(written, 200)}")
        return None

    def _pull(self) -> None:
        too_late = threading.Event()
        timer = threading.Timer(_PULL_SECONDS, too_late.set)
        timer.daemon = True
        timer.start()
        try:
            self._engine.pull_image(self._image, too_late)
        finally:
            timer.cancel()

    def _exit_code(self, container_id: str) -> int | None:
        deadline = time.monotonic() + _ASK_SECONDS
        while time.monotonic() < deadline:
            found = self._engine.find_container(container_id)
            if found is None or (found.started and not found.running):
                return None if found is None else found.exit_code
            time.sleep(_POLL_SECONDS)
        return None

    def _body(self, arguments: Sequence[str]) -> dict[str, Any]:
        return {
            "Image": self._image,
            "Entrypoint": [PROGRAM],
            "Cmd": list(arguments),
            # The owner of the device files, with none of its powers.
            "User": "0:0",
            # Whatever the image says of itself.
            "Env": ["NVIDIA_VISIBLE_DEVICES=all"],
            "Labels": self._owner.labels() | {labels.ROLE: labels.ROLE_PROBE},
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "NetworkMode": "none",
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "IpcMode": "private",
                "CgroupnsMode": "private",
                "PidsLimit": 64,
                "Memory": 1024**3,
                "MemorySwap": 1024**3,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
                "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu", "utility"]]}],
            },
        }


def _say_failed(reason: str) -> None:
    said = {"action": "gpu_probe_failed"}
    _log.warning("no GPUs: the container that looks for them failed (%s)", reason, extra=said)


def _memory(table: str) -> dict[str, int]:
    """Bytes by UUID, of lines like ``GPU-8f7e…, NVIDIA H100 80GB HBM3, 81559``."""
    found: dict[str, int] = {}
    for line in table.splitlines():
        fields = [field.strip() for field in line.split(",")]
        # ``[N/A]`` stands where a GPU has no memory of its own.
        if len(fields) >= 3 and fields[-1].isdecimal():
            found[fields[0]] = int(fields[-1]) * _MIB
    return found


def _of_profile(profile: str) -> int:
    found = _PROFILE.search(profile)
    return int(found["gigabytes"]) * 10**9 if found else 0
