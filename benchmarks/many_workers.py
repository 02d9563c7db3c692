"""A thousand slots with nothing to do: what they cost the private API, and how soon one of them has a task.

They wait at the claim as consumers do, on kept connections, each a moment after another. In a second round
they claim now and then without waiting, as consumers do that hear of tasks from the broker. The nodes report,
four slots each. All of it is asked of one process of the private API, on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import Figure, median_and_spread, percentile
from consumer.node.settings import Settings
from contracts.messages import ClaimRequest, SlotKind
from contracts.nodes import DiskFacts, MachineFacts, NodeReport, SlotFacts
from tests.rig.parts import Part
from tests.rig.polling import eventually
from tests.rig.server import Server

PARTS = ("postgres",)

_WORKERS = 1000
_SLOTS_OF_NODE = 4
_REST_SECONDS = 30.0
_TASKS = 30
# Of one core.
_MOST_CPU = 0.5
_PROMPT_SECONDS = 0.1
_GIB = 1024**3
_OVER = {"reason_code": "exit_nonzero", "reason": "A benchmark.", "exit_code": 1, "durations": {}}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Crowd:
    """The simulated slots, on a loop of their own."""

    url: str
    key: str
    wait_seconds: float
    every_seconds: float
    leased: Queue[tuple[str, float]] = field(default_factory=Queue)
    begun: int = 0
    failed: list[str] = field(default_factory=list)

    async def live(self) -> None:
        """Have all of them ask until cancelled."""
        nodes = [f"node-{number}" for number in range(_WORKERS // _SLOTS_OF_NODE)]
        slots = [(node, f"gpu-{number}") for node in nodes for number in range(_SLOTS_OF_NODE)]
        jobs = [self._slot(*slot, part=number / _WORKERS) for number, slot in enumerate(slots)]
        jobs += [self._report(node, number / len(nodes)) for number, node in enumerate(nodes)]
        await asyncio.gather(*jobs)

    async def _slot(self, node: str, slot: str, part: float) -> None:
        # As they come after a while, each at a time of its own.
        await asyncio.sleep(part * self.every_seconds)
        self.begun += 1
        wanted = ClaimRequest(node=node, slot=slot, kinds=[SlotKind.GPU], wait_seconds=self.wait_seconds)
        line = await _Line.open(self.url, self.key)
        while True:
            status, lease = await line.post("/v1/leases", wanted.to_json())
            if status not in {200, 204}:
                self.failed.append(f"claim: {status} {lease}")
                # As consumers do: a server in trouble is not helped by haste.
                await asyncio.sleep(5)
            if status == 200:
                self.leased.put((lease["task_id"], time.perf_counter()))
                await line.post(f"/v1/leases/{lease['lease_id']}/fail", _OVER, token=lease["token"])
            await asyncio.sleep(self.every_seconds - self.wait_seconds)

    async def _report(self, node: str, part: float) -> None:
        names = [f"gpu-{number}" for number in range(_SLOTS_OF_NODE)]
        report = NodeReport(
            instance=f"instance of {node}",
            machine=MachineFacts(cpus=16, memory_bytes=64 * _GIB, architecture="x86_64", engine_version="20"),
            disk=DiskFacts(total_bytes=500 * _GIB, free_bytes=400 * _GIB, has_room=True),
            slots=[SlotFacts(name=name, kind=SlotKind.GPU) for name in names],
            gpus=[],
            labels={},
            images=[f"registry.example.org/model-{number}:1" for number in range(20)],
        )
        await asyncio.sleep(10 * part)
        line = await _Line.open(self.url, self.key)
        while True:
            status, orders = await line.post(f"/v1/nodes/{node}/report", report.to_json())
            if status != 200:
                self.failed.append(f"report: {status} {orders}")
            await asyncio.sleep(orders["report_seconds"] if status == 200 else 10)


class _Line:
    """One kept HTTP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader, self._writer, self._key = reader, writer, key

    @classmethod
    async def open(cls, url: str, key: str) -> _Line:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port), key)

    async def post(self, path: str, document: dict[str, Any], token: int = 0) -> tuple[int, Any]:
        body = json.dumps(document).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._key}\r\n"
            f"Lease-Token: {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answer.split(" ", 2)[1])
        lengths = [line.split(":")[1] for line in answer.splitlines() if line.startswith("content-length:")]
        text = await self._reader.readexactly(int(lengths[0])) if lengths else b""
        return status, json.loads(text) if text else None


def measure(server: Server, *, postgres: Part) -> list[Figure]:  # noqa: ARG001 - The server has it.
    """A crowd at rest that waits, its promptness, and a crowd at rest that only comes by."""
    # Nobody but the crowd claims.
    server.consumer.stop()
    model = server.admin.register("echo", use_gpu=True)
    held = Settings.from_environment({}).claim_wait_seconds
    with _crowd(server, wait_seconds=held, every_seconds=held) as crowd:
        waiting = _at_rest(server, crowd)
        memory = _memory_bytes(server)
        prompt = _promptness(server, crowd, model)
    with _crowd(server, wait_seconds=0.0, every_seconds=held) as crowd:
        coming = _at_rest(server, crowd)
    against = "half a core"
    return [
        _cpu(f"{_WORKERS} slots that wait at the claim, at rest: CPU of the private API", waiting, against),
        _cpu(f"{_WORKERS} slots that hear from the broker, at rest: the same", coming, against),
        Figure(
            "memory of the private API meanwhile",
            f"{memory / 1e6:.0f} MB resident",
            "400 MB",
            memory / 400e6,
            "at most 1.0",
            memory <= 400e6,
        ),
        Figure(
            "with all of them waiting: from a submit's sending until its lease is in hand",
            f"{median_and_spread(prompt)}, p95 {percentile(prompt, 0.95) * 1000:.0f} ms",
            f"{_PROMPT_SECONDS * 1000:.0f} ms",
            statistics.median(prompt) / _PROMPT_SECONDS,
            "at most 1.0",
            statistics.median(prompt) <= _PROMPT_SECONDS,
        ),
    ]


def _cpu(name: str, part: float, against: str) -> Figure:
    return Figure(
        name, f"{part * 100:.0f} % of a core", against, part / _MOST_CPU, "below 1.0", part < _MOST_CPU
    )


def _at_rest(server: Server, crowd: Crowd) -> float:
    """The part of a core that the private API takes while nothing happens."""
    eventually(lambda: crowd.begun == _WORKERS, 120, "all slots have begun")
    # The rush of the first seconds is over.
    time.sleep(5)
    before = _cpu_seconds(server)
    time.sleep(_REST_SECONDS)
    used = (_cpu_seconds(server) - before) / _REST_SECONDS
    assert not crowd.failed, f"{len(crowd.failed)} failures: {crowd.failed[:3]}"
    return used


def _promptness(server: Server, crowd: Crowd, model: str) -> list[float]:
    seconds = []
    for _ in range(_TASKS):
        began = time.perf_counter()
        task_id = server.admin.submit(model)["id"]
        leased, at = crowd.leased.get(timeout=30)
        assert leased == task_id
        seconds.append(at - began)
        time.sleep(0.1)
    return seconds


@contextmanager
def _crowd(server: Server, *, wait_seconds: float, every_seconds: float) -> Iterator[Crowd]:
    crowd = Crowd(server.private_url, server.key("worker"), wait_seconds, every_seconds)
    loop = asyncio.new_event_loop()
    living = loop.create_task(crowd.live())
    done = threading.Event()

    def run() -> None:
        try:
            loop.run_until_complete(living)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - Told by the measuring thread.
            crowd.failed.append(repr(error))
        finally:
            done.set()

    threading.Thread(target=run, name="crowd", daemon=True).start()
    try:
        yield crowd
    finally:
        loop.call_soon_threadsafe(living.cancel)
        done.wait(10)


def _cpu_seconds(server: Server) -> float:
    used = 0
    for pid in server.private_api.processes():
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used += int(words[11]) + int(words[12])
    return used / _TICKS


def _memory_bytes(server: Server) -> int:
    """The largest of its processes."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in server.private_api.processes()]
    return max(pages) * os.sysconf("SC_PAGE_SIZE")
