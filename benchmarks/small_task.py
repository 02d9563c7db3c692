"""A small task, from the first byte sent to its output in hand, against ``docker run`` of the same image."""

from __future__ import annotations

import statistics
import subprocess
import time

from benchmarks.figures import Figure, median_and_spread
from tests.models.images import image_of
from tests.rig.server import Server
from tests.rig.stack import Stack
from tests.rig.zips import zip_of

_RUNS = 15


def measure(
    server: Server | Stack, *, limit: float = 1.0, title: str = "a small task, first byte to output"
) -> list[Figure]:
    """The two in turn, so that a drift of the machine's speed meets both."""
    api = server.admin
    model = api.register("echo")
    image = image_of("echo")
    body = zip_of({"in.txt": b"in"})
    headers = {"Prefer": "wait=60", "Accept": "application/zip"}

    def ours() -> float:
        started = time.perf_counter()
        answer = api.post("/v1/tasks", params={"model_human_readable_id": model}, data=body, headers=headers)
        elapsed = time.perf_counter() - started
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip"), answer.text
        return elapsed

    def theirs() -> float:
        command = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "/bin/busybox",
            image,
            "true",
        ]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    for warm_up in (ours, theirs, ours, theirs):
        warm_up()
    pairs = [(ours(), theirs()) for _ in range(_RUNS)]
    mine, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ratio = statistics.median(mine) / statistics.median(other)
    return [
        Figure(
            title,
            median_and_spread(mine),
            f"docker run --rm --network none: {median_and_spread(other)}",
            ratio,
            f"at most {limit:g}, aim 0.7",
            ratio <= limit,
        )
    ]
