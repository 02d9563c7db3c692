"""A small private API in memory: the worker protocol over HTTP, with knobs for trouble."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections import deque
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from contracts.messages import (
    BlobFacts,
    ImageSpec,
    Lease,
    Limits,
    MountPoints,
    PullPolicy,
    Sandbox,
    SandboxProfile,
)
from tests.rig.polling import eventually

MIB = 1024**2
_ROUTE = re.compile(r"/v1/leases/(?P<lease>[^/?]+)/(?P<what>[a-z]+)(\?offset=(?P<offset>\d+))?")

LIMITS = Limits(
    time_seconds=60, memory_bytes=128 * MIB, cpus=1, pids=64, output_bytes=64 * MIB, output_files=1000,
    log_bytes=MIB, shm_bytes=16 * MIB, tmp_bytes=16 * MIB,
)  # fmt: skip


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # A fixed time: the same files are the same zip, whenever they are packed.
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def facts_of(body: bytes) -> BlobFacts:
    return BlobFacts(size_bytes=len(body), sha256=hashlib.sha256(body).hexdigest())


@dataclass
class Task:
    """One lease that the protocol hands out, and all that the worker said about it."""

    lease: Lease
    input: bytes
    content: bytes | None = None
    claimed: bool = False
    stale: bool = False
    cancel: bool = False
    log: bytearray = field(default_factory=bytearray)
    output: bytes | None = None
    outputs_put: int = 0
    beats: list[dict[str, Any]] = field(default_factory=list)
    completion: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def reason_code(self) -> str:
        return "succeeded" if self.failure is None else str(self.failure["reason_code"])

    def output_files(self) -> dict[str, bytes]:
        assert self.output is not None
        with zipfile.ZipFile(io.BytesIO(self.output)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


class WorkerProtocol:
    """The server; ``away`` makes every call end in 503."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.tasks: dict[str, Task] = {}
        self._waiting: deque[Task] = deque()
        self._numbers = iter(range(1, 10**6))
        self.away = False
        self.refuse_puts = 0
        self.content_requests = 0
        self.claims = 0
        handler = type("Handler", (_Handler,), {"protocol": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def submit(
        self,
        image: str,
        files: dict[str, bytes] | None = None,
        *,
        limits: dict[str, Any] | None = None,
        content: dict[str, bytes] | None = None,
        profile: SandboxProfile = SandboxProfile.STRICT,
        raw_input: bytes | None = None,
        pull_policy: PullPolicy = PullPolicy.IF_MISSING,
        image_id: str | None = None,
        **fields: Any,
    ) -> Task:
        """Queue a task."""
        body = zip_of({"hello.txt": b"hello"} if files is None else files) if raw_input is None else raw_input
        content_body = None if content is None else zip_of(content)
        number = next(self._numbers)
        lease = Lease(
            lease_id=f"lease-{number}",
            token=number,
            lease_seconds=20.0,
            task_id=f"{number:032x}",
            attempt=1,
            model="model",
            model_version=1,
            image=ImageSpec(tag=image, image_id=image_id, digest=None, pull_policy=pull_policy),
            sandbox=Sandbox(profile=profile, network=False, tmp_exec=False),
            use_gpu=False,
            mounts=MountPoints(input="/input", output="/output", model="/model"),
            limits=replace(LIMITS, **(limits or {})),
            allow_empty_output=False,
            input=facts_of(body),
            content=None if content_body is None else facts_of(content_body),
        )
        task = Task(lease=replace(lease, **fields), input=body, content=content_body)
        with self._changed:
            self.tasks[lease.lease_id] = task
            self._waiting.append(task)
            self._changed.notify_all()
        return task

    def cancel(self, task: Task) -> None:
        with self._changed:
            task.cancel = True
            self._changed.notify_all()

    def make_stale(self, task: Task) -> None:
        with self._changed:
            task.stale = True
            self._changed.notify_all()

    def claim(self, wait_seconds: float) -> Task | None:
        with self._changed:
            self.claims += 1
            self._changed.wait_for(lambda: self._waiting, wait_seconds)
            if not self._waiting:
                return None
            task = self._waiting.popleft()
            task.claimed = True
            return task

    def beat(self, task: Task, beat: dict[str, Any]) -> dict[str, Any]:
        with self._changed:
            task.beats.append(beat)
            self._changed.wait_for(lambda: task.cancel or task.stale, beat["wait_seconds"])
            return {"cancel_requested": task.cancel, "log_bytes": len(task.log)}

    def append_log(self, task: Task, offset: int, piece: bytes) -> dict[str, Any]:
        with self._changed:
            fresh = piece[max(0, len(task.log) - offset) :]
            task.log += fresh[: task.lease.limits.log_bytes - len(task.log)]
            return {"log_bytes": len(task.log)}


class _Handler(BaseHTTPRequestHandler):
    protocol: WorkerProtocol
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - The name is the library's.
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.protocol.away:
            return self._problem(503, "unavailable")
        if self.path == "/v1/leases":
            task = self.protocol.claim(json.loads(body)["wait_seconds"])
            return self._answer(204, None) if task is None else self._answer(200, task.lease.to_json())
        task, what, offset = self._task()
        if task is None:
            return self._problem(409, "stale_lease")
        if what == "heartbeat":
            answer = self.protocol.beat(task, json.loads(body))
            return self._problem(409, "stale_lease") if task.stale else self._answer(200, answer)
        if what == "logs":
            return self._answer(200, self.protocol.append_log(task, offset, body))
        setattr(task, {"complete": "completion", "fail": "failure"}[what], json.loads(body))
        task.stale = True
        self._answer(200, {})
        task.ended.set()
        return None

    def do_GET(self) -> None:
        task, what, _ = self._task()
        if self.protocol.away:
            return self._problem(503, "unavailable")
        if task is None:
            return self._problem(409, "stale_lease")
        self.protocol.content_requests += what == "content"
        body = task.input if what == "input" else task.content or b""
        return self._raw(200, "application/zip", body)

    def do_PUT(self) -> None:
        body = self._body()
        task, _, _ = self._task()
        if self.protocol.away or self.protocol.refuse_puts > 0:
            self.protocol.refuse_puts -= 1
            return self._problem(503, "unavailable")
        if task is None:
            return self._problem(409, "stale_lease")
        task.output = body
        task.outputs_put += 1
        return self._answer(200, facts_of(body).to_json())

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _task(self) -> tuple[Task | None, str, int]:
        found = _ROUTE.fullmatch(self.path)
        assert found is not None, self.path
        task = self.protocol.tasks[found["lease"]]
        assert self.headers["Lease-Token"] == str(task.lease.token)
        return None if task.stale else task, found["what"], int(found["offset"] or 0)

    def _answer(self, status: int, value: Any) -> None:
        self._raw(status, "application/json", b"" if value is None else json.dumps(value).encode())

    def _problem(self, status: int, code: str) -> None:
        document = {"code": code, "detail": code, "retryable": status == 503}
        self._raw(status, "application/problem+json", json.dumps(document).encode())

    def _raw(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def wait_until(condition: Any, seconds: float = 20.0, what: str = "") -> None:
    """Poll until ``condition()`` is true, or fail."""
    eventually(condition, seconds, what, every=0.01)
