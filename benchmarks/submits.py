"""Submits of 1 KB tasks per second on SQLite, against reads of a model through the same relay."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import requests

from benchmarks.figures import Figure
from tests.rig.server import Server
from tests.rig.zips import zip_of

_SECONDS = 6.0
_CALLERS = 4


def measure(server: Server) -> list[Figure]:
    """Four callers at once for six seconds each: reads, then submits of tasks that no slot takes."""
    model = server.admin.register("echo", use_gpu=True)
    body = zip_of({"in.bin": os.urandom(900)})
    headers = {"Authorization": f"Bearer {server.key('admin')}"}

    def read(session: requests.Session) -> None:
        assert session.get(f"{server.url}/v1/models/{model}").status_code == 200

    def submit(session: requests.Session) -> None:
        path = f"{server.url}/v1/tasks?model_human_readable_id={model}"
        assert session.post(path, data=body).status_code == 202

    _rate(read, headers, 1.0)
    reads, submits = _rate(read, headers, _SECONDS), _rate(submit, headers, _SECONDS)
    return [
        Figure(
            "submits of 1 KB on SQLite",
            f"{submits:.0f}/s",
            f"GET /v1/models/{{id}}: {reads:.0f}/s",
            submits / reads,
            "at least 0.15",
            submits / reads >= 0.15,
        )
    ]


def _rate(request: Callable[[requests.Session], None], headers: dict[str, str], seconds: float) -> float:
    counts = [0] * _CALLERS
    until = time.perf_counter() + seconds

    def call(number: int) -> None:
        with requests.Session() as session:
            session.headers.update(headers)
            while time.perf_counter() < until:
                request(session)
                counts[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds
