"""A stand-in for the private API that records what reaches it, and the real public API in front of it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.rig.polling import eventually

ROOT = Path(__file__).resolve().parents[3]


def await_the_minutes_beginning() -> None:
    """Wait, where the minute is nearly over, for the next one.

    Wrong keys are counted by the clock's minutes, and the turn of one lets another key pass.
    """
    second = time.time() % 60
    if second >= 45:
        time.sleep(60 - second)


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    return eventually(condition, seconds, repr(condition), every=0.01)


@dataclass
class Seen:
    """One request as it reached the stand-in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    body_bytes: int = 0
    complete: bool = False
    broken: bool = False
    gone: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True
    server: Upstream
    seen: Seen

    def handle_expect_100(self) -> bool:
        return True  # Said by `read_body`, so that an answer may come first.

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.seen = Seen(self.command, self.path, headers)
        self.server.seen.append(self.seen)
        answer = self.server.script.get((self.command, self.path.partition("?")[0]))
        if answer is not None:
            answer(self)
            return
        self.read_body()
        self.answer_json(200, {"path": self.path})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _serve  # noqa: N815

    def read_body(self, *, keep: int = 1 << 20) -> None:
        seen = self.seen
        if "100-continue" in seen.headers.get("expect", ""):
            self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        for piece in self._pieces():
            seen.body_bytes += len(piece)
            if len(seen.body) < keep:
                seen.body += piece
        seen.complete = not seen.broken

    def _pieces(self) -> Iterator[bytes]:
        if self.seen.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline() or b"-1", 16):
                piece = self.rfile.read(size + 2) if size > 0 else b""
                if len(piece) != size + 2:
                    self._break()
                    return
                yield piece[:-2]
            self.rfile.readline()
            return
        left = int(self.seen.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read1(min(left, 1 << 20))
            if not piece:
                self._break()
                return
            left -= len(piece)
            yield piece

    def _break(self) -> None:
        self.seen.broken = True
        self.close_connection = True
        self.seen.gone.set()

    def answer_json(self, status: int, document: Any, **headers: str) -> None:
        body = json.dumps(document).encode()
        kind = "application/problem+json" if status >= 400 else "application/json"
        self.answer_bytes(status, body, **{"Content-Type": kind, **headers})

    def answer_bytes(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hold_until_gone(self, seconds: float) -> bool:
        """Wait without an answer; whether the other side closed meanwhile."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            self.seen.gone.set()
            self.close_connection = True
            return True
        return False

    def cut(self) -> None:
        """End the connection where it is."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.script: dict[tuple[str, str], Callable[[Handler], None]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass  # The relay breaks connections on purpose.

    def on(self, method: str, path: str, answer: Callable[[Handler], None]) -> None:
        self.script[method, path] = answer

    def on_json(self, method: str, path: str, status: int, document: Any, **headers: str) -> None:
        def answer(handler: Handler) -> None:
            handler.read_body()
            handler.answer_json(status, document, **headers)

        self.on(method, path, answer)

    @property
    def last(self) -> Seen:
        return self.seen[-1]


@dataclass
class PublicApi:
    """The real process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send ``data`` as it is and read one answer."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_answer(sock)

    def worker_pid(self) -> int:
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(tasks.split()[0])

    def peak_bytes(self) -> int:
        status = Path(f"/proc/{self.worker_pid()}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, f"closed without an answer: {data!r}"
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers.get("content-length", 0)):
        piece = sock.recv(65536)
        assert piece, f"cut short: {body!r}"
        body += piece
    return int(lines[0].split()[1]), headers, body


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running_public_api(private_api_url: str, directory: Path, **settings: str) -> Iterator[PublicApi]:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PUBLIC_API_BIND": f"127.0.0.1:{port}",
        "PRIVATE_API_URL": private_api_url,
        **settings,
    }
    log = directory / f"public_api-{port}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "public_api"], cwd=ROOT, env=environment, stderr=stderr
        )
    api = PublicApi(process, port, log)
    try:
        wait_until(lambda: _is_alive(api), 20)
        yield api
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _is_alive(api: PublicApi) -> bool:
    assert api.process.poll() is None, api.log.read_text()
    try:
        with urllib.request.urlopen(f"{api.url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
