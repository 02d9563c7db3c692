"""One gigabyte in and out: how fast it reaches the blob store, and how little memory a process needs.

The ceiling is nginx writing the same body to a file on the same disk (``dav_methods PUT``), as fast as a web
server stores a body without hashing it. Both bodies are sent by curl from the same file.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure
from tests.rig.polling import eventually
from tests.rig.server import Server

_BYTES = 1_000_000_000
_RUNS = 3
_NGINX_PORT = 18099
_RESIDENT_LIMIT = 200_000_000


def measure(server: Server) -> list[Figure]:
    """Speed of the upload, then memory over a whole task of that size."""
    with tempfile.TemporaryDirectory(dir=server.state) as directory:
        body = incompressible_zip(Path(directory))
        return [_upload_speed(server, body, Path(directory)), _resident(server, body)]


def incompressible_zip(directory: Path) -> Path:
    """A zip of one gigabyte that takes no time to make and cannot be made smaller on the way."""
    target = directory / "large.zip"
    piece = memoryview(bytes(range(256)) * 4096)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive, archive.open("large.bin", "w") as file:
        for _ in range(_BYTES // len(piece)):
            file.write(piece)
    return target


def _upload_speed(server: Server, body: Path, directory: Path) -> Figure:
    api = server.admin
    # Disabled consumers are not needed for this: the tasks are canceled while they wait for a GPU.
    model = api.register("echo", use_gpu=True)
    size = body.stat().st_size
    ours, theirs = [], []
    with nginx(directory) as nginx_url:
        for run in range(_RUNS + 1):
            theirs.append(_curl(body, f"{nginx_url}/large-{run}.zip"))
            (directory / "store" / f"large-{run}.zip").unlink()
            address = f"{server.url}/v1/tasks?model_human_readable_id={model}"
            ours.append(_curl(body, address, f"Authorization: Bearer {server.key('admin')}"))
            for task in api.get("/v1/tasks", params={"model": model}).json()["items"]:
                api.call("DELETE", f"/v1/tasks/{task['id']}")
    mine, other = (size / statistics.median(seconds[1:]) / 1e6 for seconds in (ours, theirs))
    return Figure(
        "1 GB into the blob store, hashed",
        f"{mine:.0f} MB/s",
        f"nginx PUT to a file: {other:.0f} MB/s",
        mine / other,
        "at least 0.15, aim 0.3",
        mine / other >= 0.15,
    )


def _resident(server: Server, body: Path) -> Figure:
    api = server.admin
    model = api.register("echo", memory_bytes=1024**3, time_seconds=600)
    with _peak_resident(server) as peaks:
        address = f"{server.url}/v1/tasks?model_human_readable_id={model}"
        _curl(body, address, f"Authorization: Bearer {server.key('admin')}")
        task = api.get("/v1/tasks", params={"model": model}).json()["items"][0]
        ended = api.ended(task, seconds=600)
        assert ended["state"] == "succeeded", ended
        received = 0
        with api.get(f"/v1/tasks/{task['id']}/output", stream=True) as answer:
            for piece in answer.iter_content(1024 * 1024):
                received += len(piece)
        assert received == ended["output"]["size_bytes"]
    worst_name, worst = max(peaks.items(), key=lambda item: item[1])
    return Figure(
        "1 GB in and out, largest process",
        f"{worst_name}: {worst / 1e6:.0f} MB resident",
        "200 MB",
        worst / _RESIDENT_LIMIT,
        "at most 1.0 for every process",
        worst <= _RESIDENT_LIMIT,
    )


def _curl(body: Path, address: str, header: str = "X-Nothing: 1") -> float:
    command = ["curl", "-sSf", "-o", "/dev/null", "-H", header, "-H", "Expect:", "-T", str(body), address]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


@contextmanager
def nginx(directory: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """An nginx that writes what is PUT to files below ``directory``, and its address."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    store, url = directory / "store", f"http://{address}:{_NGINX_PORT}"
    store.mkdir()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"""daemon off; pid {directory}/nginx.pid; error_log stderr; user root;
        events {{}}
        http {{ access_log off; client_body_temp_path {directory}/body; server {{
          listen {address}:{_NGINX_PORT}; root {store}; client_max_body_size 0;
          location / {{ dav_methods PUT; }} }} }}"""
    )
    process = subprocess.Popen([program, "-e", "stderr", "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        eventually(
            lambda: subprocess.run(["curl", "-s", url], check=False, capture_output=True).returncode == 0,
            10,
            "nginx answers",
        )
        yield url
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _peak_resident(server: Server) -> Iterator[dict[str, int]]:
    peaks: dict[str, int] = {}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.05):
            for service in server.services:
                for pid in service.processes():
                    name = f"{service.name}/{pid}"
                    peaks[name] = max(peaks.get(name, 0), resident_bytes(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
