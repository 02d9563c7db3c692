"""What can be felt of a container from outside while it runs: its memory, and its calls for a network.

A trial makes one for each run. It changes nothing about the container: production's sandbox stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread

from consumer.outside.errors import EngineError
from consumer.outside.inspecting_engine import InspectingEngine

# A growing array is filled in tens of milliseconds; reading two small files takes a fraction of one.
_SAMPLE_SECONDS = 0.02
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_TABLE_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class NetworkCalls:
    """How often a program met the walls of a network namespace that holds a loopback and nothing else.

    ``no_route``: addresses elsewhere. ``unheard``: datagrams to a port of the loopback where nobody listens,
    which is what asking for a name comes to on machines whose name server is their own.
    """

    no_route: int
    unheard: int


class NetworkSense:
    """The kernel's counters of one network namespace (proc(5), ``/proc/PID/net/snmp``).

    An open counter file holds the namespace, so it can still be read when the container has gone.
    """

    def __init__(self, process_id: int) -> None:
        """Raises ``OSError`` where that process cannot be seen from here."""
        self._table = os.open(Path(f"/proc/{process_id}/net/snmp"), os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> NetworkCalls:
        """What has been counted so far."""
        return parse_counters(os.pread(self._table, _TABLE_BYTES, 0).decode())

    def close(self) -> None:
        """Let go of the namespace."""
        os.close(self._table)


def parse_counters(table: str) -> NetworkCalls:
    """The counters in the kernel's table, which has a line of names and one of numbers for each protocol."""
    lines = [line.split() for line in table.splitlines()]
    counted = {
        f"{names[0]}{name}": int(number)
        for names, numbers in zip(lines[::2], lines[1::2], strict=False)
        for name, number in zip(names[1:], numbers[1:], strict=False)
    }
    return NetworkCalls(no_route=counted.get("Ip:OutNoRoutes", 0), unheard=counted.get("Udp:NoPorts", 0))


class MemorySense:
    """The memory of a process's control group, of either version (cgroups(7)), read from the kernel's files.

    The engine's own answer comes once a second, which is longer than many a model runs.
    """

    def __init__(self, process_id: int) -> None:
        """Raises ``OSError`` where that control group cannot be seen from here."""
        group, self._now, self._cache = memory_group(Path(f"/proc/{process_id}/cgroup").read_text())
        self._place = _CONTROL_GROUPS / group
        self.read()

    def read(self) -> int:
        """Bytes held now, without file pages that the kernel may take back; raises ``OSError`` at the end."""
        held = int((self._place / self._now).read_text())
        details = dict(line.split() for line in (self._place / "memory.stat").read_text().splitlines())
        return max(0, held - int(details.get(self._cache, "0")))


def memory_group(table: str) -> tuple[str, str, str]:
    """Where ``/proc/PID/cgroup`` says that memory is counted: directory, and what the numbers are called."""
    groups = {
        controllers: path for _, controllers, path in (line.split(":", 2) for line in table.splitlines())
    }
    for controllers, path in groups.items():
        if "memory" in controllers.split(","):
            return f"memory{path}", "memory.usage_in_bytes", "total_inactive_file"
    return groups.get("", "").lstrip("/"), "memory.current", "inactive_file"


class Senses:
    """The senses of one run, from its start until ``close``."""

    def __init__(self, engine: InspectingEngine) -> None:
        self._engine = engine
        self._network: NetworkSense | None = None
        self._peak_bytes = 0
        self._closed = Event()
        self._thread: Thread | None = None

    def feel_network(self, container_id: str) -> None:
        """Watch the network namespace of a running container; one that cannot be seen is left alone."""
        self._open_network(self._process_id(container_id))

    def begin(self, container_id: str) -> None:
        """The model's container has been started."""
        # Asked once: each question takes the engine as long as some models run.
        process_id = self._process_id(container_id)
        self._open_network(process_id)
        self._thread = Thread(
            target=self._sample, args=(container_id, process_id), name="senses", daemon=True
        )
        self._thread.start()

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most that was seen; None for a container that ended before the first look."""
        return self._peak_bytes or None

    def network_calls(self) -> NetworkCalls | None:
        """What was counted, None where nothing could be seen."""
        return None if self._network is None else self._network.read()

    def close(self) -> None:
        """Feel no more."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._network is not None:
            self._network.close()

    def _process_id(self, container_id: str) -> int | None:
        try:
            return self._engine.process_id(container_id)
        except EngineError:
            return None

    def _open_network(self, process_id: int | None) -> None:
        if process_id is None or self._network is not None:
            return
        # The engine's processes may be those of another machine, or root's only.
        with suppress(OSError):
            self._network = NetworkSense(process_id)

    def _sample(self, container_id: str, process_id: int | None) -> None:
        look: Callable[[], int | None] = partial(self._engine.memory_bytes, container_id)
        try:
            if process_id is not None:
                # Where the control groups cannot be seen, the engine's own slow answer has to do.
                with suppress(OSError, ValueError):
                    look = MemorySense(process_id).read
            while (seen := look()) is not None:
                self._peak_bytes = max(self._peak_bytes, seen)
                if self._closed.wait(_SAMPLE_SECONDS):
                    return
        except (OSError, EngineError):
            # The container has ended, and its control group with it.
            return
