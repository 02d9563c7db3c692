"""What a node counts: slots, attempts and their phases, caches, trouble with engine, server and broker.

Each slot's process counts for itself; the parent shows all of them together, with the node's disk. Whoever
brings a change about counts it here. This module enters nothing of ours but the contracts and ``serving``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contracts.messages import SlotKind
from contracts.states import Phase
from serving.metrics import PHASE_BUCKETS, registry_of_service


class SlotState(StrEnum):
    """What a slot does."""

    IDLE = "idle"  # Waits for a task.
    BUSY = "busy"  # Runs one.
    DRAINING = "draining"  # Takes none: an operator wants it so, or the node's name is another's.
    NOT_READY = "not_ready"  # Takes none: the engine, the server, the disk or a leftover is in its way.


class Cache(StrEnum):
    """What a node keeps for later tasks."""

    IMAGE = "image"
    CONTENT = "content"


_SLOTS = Gauge(
    "inferenceserver_slots", "Slots by what they do now.", ["kind", "state"], multiprocess_mode="livesum"
)
_SLOTS_CONFIGURED = Gauge(
    "inferenceserver_slots_configured",
    "Slots that this node is to have.",
    ["kind"],
    multiprocess_mode="livesum",
)
_ATTEMPTS = Counter("inferenceserver_attempts", "Attempts that ended, by what became of them.", ["outcome"])
_PHASE_SECONDS = Histogram(
    "inferenceserver_attempt_phase_duration_seconds",
    "How long attempts were in each phase.",
    ["phase"],
    buckets=PHASE_BUCKETS,
)
_LOOKUPS = Counter(
    "inferenceserver_cache_lookups",
    "Images and contents needed, by whether they were here.",
    ["cache", "result"],
)
_EVICTIONS = Counter(
    "inferenceserver_cache_evictions", "Images and contents that were removed to make room.", ["cache"]
)
_WITHOUT_ROOM = Gauge(
    "inferenceserver_slots_without_room",
    "Slots that take no task because a disk of the node is full.",
    multiprocess_mode="livesum",
)
_ENGINE_ERRORS = Counter(
    "inferenceserver_engine_errors", "Calls to the container engine that failed, by how.", ["error"]
)
_SERVER_ERRORS = Counter(
    "inferenceserver_server_errors", "Calls to the server that had no answer, or that it could not serve."
)
_BROKER_UP = Gauge(
    "inferenceserver_slots_hearing_broker",
    "Slots that the broker can reach; the others wait by long poll.",
    multiprocess_mode="livesum",
)

_DRAINING = Gauge(
    "inferenceserver_node_takes_no_tasks",
    "1 while an operator drains this node, or while another node has its name.",
    multiprocess_mode="livesum",
)


def show_slot(kind: SlotKind, state: SlotState) -> None:
    """This process's slot is in ``state`` now."""
    for each in SlotState:
        _SLOTS.labels(kind.value, each.value).set(each is state)


def count_attempt(outcome: str, durations: Mapping[str, float]) -> None:
    """Count an attempt that ended: ``succeeded``, ``lease_lost`` or a reason code; seconds by phase."""
    _ATTEMPTS.labels(outcome).inc()
    for phase in Phase:
        if phase.value in durations:
            _PHASE_SECONDS.labels(phase.value).observe(durations[phase.value])


def count_lookup(cache: Cache, *, hit: bool) -> None:
    """Count one look into a cache."""
    _LOOKUPS.labels(cache.value, "hit" if hit else "miss").inc()


def count_eviction(cache: Cache) -> None:
    """Count one that was removed."""
    _EVICTIONS.labels(cache.value).inc()


def show_draining(*, draining: bool) -> None:
    """Whether this node takes no tasks by somebody's wish."""
    _DRAINING.set(draining)


def show_room(*, suffices: bool) -> None:
    """Whether this process's slot finds room for a task."""
    _WITHOUT_ROOM.set(not suffices)


def count_engine_error(error: str) -> None:
    """Count a call that failed: ``away``, ``refused`` or ``nonsense``."""
    _ENGINE_ERRORS.labels(error).inc()


def count_server_error() -> None:
    """Count a call that may succeed later."""
    _SERVER_ERRORS.inc()


def show_broker(*, reached: bool) -> None:
    """Whether this process's slot hears announcements."""
    _BROKER_UP.set(reached)


def serve_metrics(host: str, port: int, directory: Path, kinds: Mapping[SlotKind, int]) -> None:
    """Show the metrics of this node's processes at ``host:port`` from now on; raises ``OSError``."""
    for kind in SlotKind:
        _SLOTS_CONFIGURED.labels(kind.value).set(kinds.get(kind, 0))
        for state in SlotState:
            # Shown from the start, although no slot of this kind may ever say so.
            _SLOTS.labels(kind.value, state.value).set(0)
    start_http_server(port, host, registry=registry_of_service("consumer", _Disk(directory)))


class _Disk(Collector):
    """The disk of the working directory, where images usually lie as well."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        with suppress(OSError):
            usage = shutil.disk_usage(self._directory)
            yield GaugeMetricFamily(
                "inferenceserver_node_disk_free_bytes", "Free space where tasks work.", value=usage.free
            )
            yield GaugeMetricFamily(
                "inferenceserver_node_disk_size_bytes",
                "Size of the disk where tasks work.",
                value=usage.total,
            )


# Shown from the start: a counter that appears with its first count hides that count.
_ATTEMPTS.labels("succeeded")
for _phase in Phase:
    _PHASE_SECONDS.labels(_phase.value)
for _cache in Cache:
    _EVICTIONS.labels(_cache.value)
    for _result in ("hit", "miss"):
        _LOOKUPS.labels(_cache.value, _result)
for _error in ("away", "refused", "nonsense"):
    _ENGINE_ERRORS.labels(_error)
