"""What all services show to Prometheus, whichever they are: the exposition, and who they are.

Metrics are made where they are counted, at import, as prometheus_client means it. Names begin with
``inferenceserver_`` and end in a base unit. A label takes few values, all of them known beforehand: states,
reasons, kinds, route templates. Never a task, a path, an address or a key, and no model either: people choose
those names, they may be any number, and in the files that processes share a series never ends. Logs answer
what a metric leaves open.

prometheus_client only: a node that just runs models has no web framework installed.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from serving.metrics_directory import VARIABLE

CONTENT_TYPE = CONTENT_TYPE_LATEST
_VERSION = re.compile(r'^version = "([^"]+)"', re.MULTILINE)

# From a few milliseconds to the hours that a large image or a long model may take.
PHASE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)


def registry_of_service(service: str, *collectors: Collector) -> CollectorRegistry:
    """What ``service`` has counted in all its processes, and what ``collectors`` find out at each scrape."""
    registry = CollectorRegistry()
    if os.environ.get(VARIABLE):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        # Nobody chose a directory: one process, which counts in memory.
        registry.register(_Own())
    registry.register(_BuildInfo(service))
    for collector in collectors:
        registry.register(collector)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """All of ``registry`` in Prometheus' text format."""
    return generate_latest(registry)


def forget_process(pid: int) -> None:
    """What a process that has ended had at the moment (not what it has counted) is no longer shown."""
    if os.environ.get(VARIABLE):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


@cache
def version() -> str:
    """The version of this server, as its project file has it; "unknown" where that is not installed."""
    with contextlib.suppress(OSError):
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        if found := _VERSION.search(project.read_text()):
            return found[1]
    return "unknown"


class _Own(Collector):
    """The metrics of this process."""

    def collect(self) -> Iterable[Metric]:
        return (metric for metric in REGISTRY.collect() if metric.name.startswith("inferenceserver_"))


class _BuildInfo(Collector):
    def __init__(self, service: str) -> None:
        self._labels = (service, version(), platform.python_version())

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "inferenceserver_build_info",
            "Always 1; the labels say what runs here.",
            labels=("service", "version", "python"),
        )
        info.add_metric(self._labels, 1)
        yield info
