"""The full stack, entered through its proxy over TLS: a small task, and one gigabyte up and down.

The ceiling of the large body is nginx writing it to a file behind a Caddy of the same image, with the same
kind of certificate. The small task is held against ``docker run`` of the same image.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import small_task
from benchmarks.figures import Figure
from benchmarks.large_bodies import incompressible_zip, nginx, resident_bytes
from setup.images import part_images
from tests.models.images import engine
from tests.rig.polling import eventually
from tests.rig.ports import free_ports
from tests.rig.stack import Stack

STAND = "stack"
_RUNS = 3
_RESIDENT_LIMIT = 200_000_000
_OURS = ("public_api", "private_api", "consumer")


def measure(stack: Stack) -> list[Figure]:
    """The small task first, while nothing else was done; then the large bodies."""
    figures = small_task.measure(stack, limit=1.2, title="a small task through the full stack")
    # On the disk of the engine, where the store's volumes lie too.
    with tempfile.TemporaryDirectory(dir=stack.state) as directory:
        figures += _large_bodies(stack, Path(directory))
    return figures


def _large_bodies(stack: Stack, directory: Path) -> list[Figure]:
    body = incompressible_zip(directory)
    model = stack.admin.register("echo", use_gpu=True)
    key = ["-H", f"Authorization: Bearer {stack.key('admin')}"]
    root = ["--cacert", str(stack.places.root_certificate)]
    ours: dict[str, list[float]] = {"up": [], "down": []}
    theirs: dict[str, list[float]] = {"up": [], "down": []}
    gateway = engine().networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with nginx(directory, gateway) as upstream, _caddy(upstream) as plain, _peaks(stack) as peaks:
        for run in range(_RUNS + 1):
            theirs["up"].append(_curl("-k", "-T", str(body), f"{plain}/large-{run}.zip"))
            theirs["down"].append(_curl("-k", f"{plain}/large-{run}.zip"))
            (directory / "store" / f"large-{run}.zip").unlink()
            address = f"{stack.url}/v1/tasks?model_human_readable_id={model}"
            ours["up"].append(_curl(*root, *key, "-T", str(body), address))
            task = stack.admin.get("/v1/tasks", params={"model": model}).json()["items"][0]["id"]
            ours["down"].append(_curl(*root, *key, f"{stack.url}/v1/tasks/{task}/input"))
            stack.admin.call("DELETE", f"/v1/tasks/{task}")
    size = body.stat().st_size
    figures = []
    for way, title in (("up", "1 GB up through TLS"), ("down", "1 GB down through TLS")):
        # The first of each warms up.
        mine, other = (size / statistics.median(times[way][1:]) / 1e6 for times in (ours, theirs))
        against = f"nginx behind the same Caddy: {other:.0f} MB/s"
        ratio = mine / other
        figures.append(Figure(title, f"{mine:.0f} MB/s", against, ratio, "at least 0.5", ratio >= 0.5))
    name, worst = max(peaks.items(), key=lambda item: item[1])
    ratio = worst / _RESIDENT_LIMIT
    measured = f"{name}: {worst / 1e6:.0f} MB resident"
    return [
        *figures,
        Figure("the same, largest process of ours", measured, "200 MB", ratio, "at most 1.0", ratio <= 1),
    ]


def _curl(*words: str) -> float:
    """Seconds of one transfer. HTTP/1.1, which both ends speak faster than HTTP/2 here."""
    started = time.perf_counter()
    command = ["curl", "-sSf", "--http1.1", "-o", "/dev/null", "-H", "Expect:", *words]
    subprocess.run(command, check=True)
    return time.perf_counter() - started


@contextmanager
def _caddy(upstream: str) -> Iterator[str]:
    """A Caddy of the stack's own image before ``upstream``; its address, with a certificate of its own."""
    [port] = free_ports(1)
    handler = {"handler": "reverse_proxy", "upstreams": [{"dial": upstream.removeprefix("http://")}]}
    server = {
        "listen": [":8443"],
        "routes": [{"match": [{"host": ["localhost"]}], "handle": [handler]}],
        "tls_connection_policies": [{}],
        "automatic_https": {"disable_redirects": True},
    }
    policy = {"subjects": ["localhost"], "issuers": [{"module": "internal"}]}
    configuration = {
        "admin": {"disabled": True},
        "apps": {
            "http": {"servers": {"plain": server}},
            "tls": {"automation": {"policies": [policy]}},
            "pki": {"certificate_authorities": {"local": {"install_trust": False}}},
        },
    }
    write = f"echo '{json.dumps(configuration)}' >/tmp/caddy.json"
    container = engine().containers.run(
        part_images.CADDY.tag,
        ["sh", "-c", f"{write}; exec caddy run --config /tmp/caddy.json"],
        detach=True,
        ports={"8443/tcp": ("127.0.0.1", port)},
    )
    address = f"https://localhost:{port}"
    try:
        command = ["curl", "-sk", "-o", "/dev/null", address]
        eventually(
            lambda: subprocess.run(command, check=False).returncode == 0, 30, "the plain Caddy answers"
        )
        yield address
    finally:
        container.remove(force=True, v=True)


@contextmanager
def _peaks(stack: Stack) -> Iterator[dict[str, int]]:
    """The largest resident size of each process of ours, as long as the block lasts."""
    peaks: dict[str, int] = {}
    stop = threading.Event()
    pids = {
        f"{name}/{process[1]}": int(process[1])
        for name in _OURS
        for process in stack.service(name).container.top()["Processes"]
    }

    def sample() -> None:
        while not stop.wait(0.05):
            for name, pid in pids.items():
                peaks[name] = max(peaks.get(name, 0), resident_bytes(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()
