"""What is asked afresh for a scrape: the queue, the state of what we stand on, the disk.

The ``/metrics`` door enters. Answers are kept for some seconds, so that scraping often costs nothing, and
what hangs is shown as away: a monitor that waits for a frozen database would see nothing of anything. Any of
several processes answers the same, so nothing here is counted twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from private_api.announcing.announcer import BrokerState
from private_api.http.services import Services
from private_api.probe import Probe
from private_api.store.measures import LiveTasks, measure_live_tasks

_KEEP_SECONDS = 5.0
# Counting dead letters takes a connection to the broker of its own.
_KEEP_DEAD_LETTERS_SECONDS = 30.0
# Prometheus gives up after ten.
_PATIENCE_SECONDS = 3.0


class Scrape(Collector):
    """The state of the service at the moment of the scrape."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks = Probe("measure-tasks", self._measure, keep_seconds=_KEEP_SECONDS)
        self._blobs = Probe("check-blobs", self._check_blobs, keep_seconds=_KEEP_SECONDS)
        self._letters = Probe("count-letters", self._count, keep_seconds=_KEEP_DEAD_LETTERS_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """The metrics, within seconds whatever hangs."""
        has_broker = self._services.dead_letters is not None
        self._tasks.begin()
        self._blobs.begin()
        if has_broker:
            self._letters.begin()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        live = self._tasks.answer(deadline)
        yield _gauge("inferenceserver_database_up", "Whether the database answers.", live is not None)
        if live is not None:
            yield from _live_metrics(live)
        blobs = self._blobs.answer(deadline)
        yield _gauge(
            "inferenceserver_blob_store_up", "Whether the blob store can be used.", blobs is not None
        )
        yield from self._disk_metrics()
        if has_broker:
            is_ok = self._services.announcer.state() is BrokerState.OK
            yield _gauge("inferenceserver_broker_up", "Whether the broker takes announcements.", is_ok)
            letters = self._letters.answer(deadline)
            if letters is not None:
                said = "Messages that no consumer could read."
                yield _gauge("inferenceserver_dead_letters", said, letters)

    def _measure(self) -> LiveTasks:
        with self._services.database.read() as connection:
            return measure_live_tasks(connection)

    def _check_blobs(self) -> bool:
        self._services.blobs.check()
        return True

    def _count(self) -> int:
        box = self._services.dead_letters
        return 0 if box is None else box.count()

    def _disk_metrics(self) -> Iterator[Metric]:
        settings = self._services.settings
        # The second is where our own files lie: in a container, the disk that holds all containers' data.
        places = {"state": settings.key_directory}
        if settings.blob_store == "directory":
            places["blobs"] = settings.blob_directory
        free = GaugeMetricFamily(
            "inferenceserver_disk_free_bytes", "Free space where our data lies.", labels=["place"]
        )
        size = GaugeMetricFamily(
            "inferenceserver_disk_size_bytes", "The size of that disk.", labels=["place"]
        )
        for place, path in places.items():
            with suppress(OSError):
                usage = shutil.disk_usage(Path(path))
                free.add_metric([place], usage.free)
                size.add_metric([place], usage.total)
        yield free
        yield size


def _live_metrics(live: LiveTasks) -> Iterator[Metric]:
    tasks = GaugeMetricFamily(
        "inferenceserver_tasks",
        "Tasks that have not ended, by the kind of slot they need and their state.",
        labels=["kind", "state"],
    )
    for (kind, state), number in live.counts.items():
        tasks.add_metric([kind.value, state.value], number)
    yield tasks
    oldest = GaugeMetricFamily(
        "inferenceserver_queue_oldest_age_seconds",
        "How long the task that has waited longest has been queued; 0 where none waits.",
        labels=["kind"],
    )
    for kind, seconds in live.oldest_queued_seconds.items():
        oldest.add_metric([kind.value], seconds)
    yield oldest
    slots = GaugeMetricFamily(
        "inferenceserver_slots_heard", "Workers' slots heard of in the last 90 seconds.", labels=["kind"]
    )
    for kind, number in live.slots.items():
        slots.add_metric([kind.value], number)
    yield slots
    nodes = GaugeMetricFamily(
        "inferenceserver_nodes", "Nodes that have reported, by state.", labels=["state"]
    )
    for stand, number in live.nodes.items():
        nodes.add_metric([stand.value], number)
    yield nodes


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))
