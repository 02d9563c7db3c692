"""A hundred submits a second on PostgreSQL and RabbitMQ: how far the slow ones lie from the median.

An open loop: each request has its moment, whether or not the earlier ones have been answered, and its time
counts from that moment on. Then once more with the broker frozen, which nobody should notice.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.figures import Figure, percentile
from tests.rig.parts import Part
from tests.rig.server import Server
from tests.rig.zips import zip_of

PARTS = ("postgres", "rabbitmq")

_PER_SECOND = 100
_SECONDS = 20
_CALLERS = 32
# Connections, caches and the database's first look at its tables are not what is measured.
_WARM_UP_SECONDS = 3
_FROZEN_SECONDS = 0.250
# On a machine that cannot keep the rate at all everybody waits in one line, and the ratio says nothing.
_MEDIAN_SECONDS = 0.050


def measure(server: Server, *, postgres: Part, rabbitmq: Part | None = None) -> list[Figure]:
    """Submit at the given rate; then, where there is a broker, with that frozen."""
    # No slot takes tasks of this kind here.
    model = server.admin.register("echo", use_gpu=True)
    address = f"{server.private_url}/v1/tasks?model_human_readable_id={model}"
    key = server.key("admin")
    assert postgres.url == server.private_api.environment["DATABASE_URL"]
    submit_openly(address, key, _WARM_UP_SECONDS)
    usual = submit_openly(address, key, _SECONDS)
    median, p99 = statistics.median(usual), percentile(usual, 0.99)
    figures = [
        Figure(
            f"{_PER_SECOND} submits/s on PostgreSQL, open loop, p99",
            _milliseconds(usual),
            f"their median: {median * 1000:.1f} ms",
            p99 / median,
            "below 5.0, median below 50 ms",
            p99 < 5 * median and median < _MEDIAN_SECONDS,
        )
    ]
    if rabbitmq is None:
        return figures
    rabbitmq.pause()
    try:
        frozen = submit_openly(address, key, _SECONDS)
    finally:
        rabbitmq.unpause()
    frozen_p99 = percentile(frozen, 0.99)
    return [
        *figures,
        Figure(
            "the same with the broker frozen, median",
            _milliseconds(frozen),
            f"with the broker: {median * 1000:.1f} ms",
            statistics.median(frozen) / median,
            "at most 1.5, p99 below 250 ms",
            statistics.median(frozen) <= 1.5 * median and frozen_p99 < _FROZEN_SECONDS,
        ),
    ]


def submit_openly(address: str, key: str, seconds: float) -> list[float]:
    """Seconds from each request's own moment until its answer, at a fixed rate for ``seconds``."""
    body = zip_of({"in.bin": os.urandom(900)})
    own = threading.local()
    first = time.perf_counter() + 0.2

    def submit(number: int) -> float:
        if not hasattr(own, "session"):
            own.session = requests.Session()
            own.session.headers["Authorization"] = f"Bearer {key}"
        due = first + number / _PER_SECOND
        time.sleep(max(0.0, due - time.perf_counter()))
        answer = own.session.post(address, data=body)
        assert answer.status_code == 202, answer.text
        return time.perf_counter() - due

    with ThreadPoolExecutor(_CALLERS) as callers:
        return list(callers.map(submit, range(int(seconds * _PER_SECOND))))


def _milliseconds(seconds: list[float]) -> str:
    parts = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "most": 1.0}
    return ", ".join(f"{name} {percentile(seconds, part) * 1000:.1f} ms" for name, part in parts.items())
