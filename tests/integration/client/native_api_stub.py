"""A small server of the native interface, in memory, whose faults and tasks a test directs.

It keeps what came (``requests``), answers as the real one does, and breaks what ``faults`` names.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from native_api_records import ENDED, KEY, Fault, Request, StubTask, facts_of, zip_of


class NativeApiStub:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.changed = threading.Condition()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.tasks: dict[str, StubTask] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.keys: list[dict[str, Any]] = []
        self.dead_letters: list[dict[str, Any]] = []
        self.nodes: dict[str, dict[str, Any]] = {}
        self.replies: dict[str, tuple[int, dict[str, Any]]] = {}
        self.on_submit: Callable[[StubTask], None] = lambda task: self.succeed(task, {"out.txt": b"done\n"})
        self.on_cancel: Callable[[StubTask], None] = lambda task: self.update(task, state="canceled")
        self.keep_bodies = True
        # Set when a request is left unread, and when its sender need no longer be held.
        self.stalled, self.closing = threading.Event(), threading.Event()
        self.hold_answers = True
        self.add_model("echo")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.stub = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.url = f"https://localhost:{self._server.server_port}"

    def __enter__(self) -> NativeApiStub:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def add_model(self, model_id: str, **fields: Any) -> dict[str, Any]:
        self.models[model_id] = {
            "id": len(self.models) + 1, "uid": "ab", "human_readable_id": model_id, "description": "",
            "enabled": True,
            "container_tag": "busybox:1", "pull_policy": "if_missing", "use_gpu": False, "version": 1,
            "image_id": None, "image_digest": None, "content": None,
            "sandbox": {"profile": "strict", "network": False, "tmp_exec": False},
            "limits": {"time_seconds": 1800.0, "memory_bytes": 1 << 32}, "created_at": "2026-11-21T08:00:00Z",
            "updated_at": "2026-11-21T08:00:00Z", **fields,
        }  # fmt: skip
        return self.models[model_id]

    def update(self, task: StubTask, **fields: Any) -> None:
        with self.changed:
            task.state = fields.pop("state", task.state)
            task.log += fields.pop("log", b"")
            task.fields |= fields
            self.changed.notify_all()

    def succeed(self, task: StubTask, files: dict[str, bytes], log: bytes = b"") -> None:
        task.output = zip_of(files)
        self.update(task, state="succeeded", log=log)

    def seen(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and r.path == path]

    def only_task(self) -> StubTask:
        (task,) = self.tasks.values()
        return task


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        pass

    @property
    def stub(self) -> NativeApiStub:
        return self.server.stub  # type: ignore[attr-defined, no-any-return]

    def _handle(self) -> None:
        try:
            self._answer_request()
        except ConnectionError:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def _answer_request(self) -> None:
        parts = urlsplit(self.path)
        fault = self._next_fault(f"{self.command} {parts.path}")
        if fault and fault.kind == "drop":
            return self._hang_up()
        if fault and fault.kind == "stall":
            self.stub.stalled.set()
            self.stub.closing.wait(60)
            return self._hang_up()
        if fault and fault.kind == "early":
            self.close_connection = True
            return self._problem(int(fault.headers["status"]), fault.headers["code"])
        body, length = self._read_body()
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(self.command, unquote(parts.path), query, self.headers, body, length)
        self.stub.requests.append(request)
        if fault is None:
            return self._route(request)
        return self._break(request, fault)

    def _break(self, request: Request, fault: Fault) -> None:
        if fault.kind == "drop_after":
            self._route(request, mute=True)
            self._hang_up()
        elif fault.kind == "empty_200":
            self._send(200, b"", {})
        elif fault.kind == "html_200":
            self._send(200, b"<html>hello</html>", {"Content-Type": "text/html"})
        elif fault.kind in {"cut", "corrupt"}:
            self._fault = fault
            self._route(request)
        else:
            kind = "application/problem+json" if fault.body else "text/html"
            headers = {"Content-Type": kind, **fault.headers}
            self._send(int(fault.kind), json.dumps(fault.body or {}).encode(), headers)

    _fault: Fault | None = None

    def _next_fault(self, what: str) -> Fault | None:
        for fault in self.stub.faults:
            if fault.times and re.search(fault.pattern, what):
                fault.times -= 1
                return fault
        return None

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()

    def _read_body(self) -> tuple[bytes, int]:
        chunks, count = [], 0
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                count += size
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks), count
        left = int(self.headers.get("Content-Length") or 0)
        while left and (data := self.rfile.read(min(left, 1 << 20))):
            if self.stub.keep_bodies:
                chunks.append(data)
            left -= len(data)
            count += len(data)
        if left:
            raise ConnectionError("The body ended early")
        return b"".join(chunks), count

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if getattr(self, "_mute", False):
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        fault, self._fault = self._fault, None
        if fault and fault.kind == "cut":
            self.wfile.write(body[: fault.cut_at])
            self.close_connection = True
            return
        self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]) if fault else body)

    def _json(self, status: int, document: object, **headers: str) -> None:
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})

    def _problem(
        self, status: int, code: str, *, retryable: bool = False, task_id: str | None = None
    ) -> None:
        document = {
            "type": "about:blank",
            "title": code,
            "status": status,
            "detail": f"It is {code}.",
            "code": code,
        }
        document |= {"retryable": retryable} | ({"task_id": task_id} if task_id else {})
        self._send(status, json.dumps(document).encode(), {"Content-Type": "application/problem+json"})

    def _route(self, request: Request, *, mute: bool = False) -> None:
        self._mute = mute
        authorization = request.headers.get("Authorization", "")
        basic = base64.b64encode(f"user:{KEY}".encode()).decode()
        if authorization not in {f"Bearer {KEY}", f"Basic {basic}"}:
            return self._problem(401, "unauthenticated")
        if authorization.endswith("weak"):
            return self._problem(403, "forbidden")
        segments = request.path.removeprefix("/prefix").strip("/").split("/")[1:]
        key = request.headers.get("Idempotency-Key")
        if key and key in self.stub.replies:
            return self._json(*self.stub.replies[key])
        return getattr(self, f"_{segments[0].replace('-', '_')}", self._nothing)(request, segments[1:])

    def _nothing(self, _request: Request, _segments: list[str]) -> None:
        self._problem(404, "not_found")

    def _created(self, request: Request, status: int, document: dict[str, Any]) -> None:
        self.stub.replies[request.headers["Idempotency-Key"]] = (status, document)
        self._json(status, document)

    def _tasks(self, request: Request, segments: list[str]) -> None:
        if not segments and request.method == "GET":
            return self._list([task.document() for task in self.stub.tasks.values()], request)
        if not segments:
            return self._submit(request, request.query["model_human_readable_id"], request.body)
        task = self.stub.tasks.get(segments[0])
        if task is None:
            return self._problem(404, "task_not_found")
        routes: dict[tuple[str, ...], Callable[[Request, StubTask], None]] = {
            ("GET",): self._show_task,
            ("DELETE",): self._delete_task,
            ("POST", "cancel"): self._cancel_task,
            ("POST", "retry"): lambda request, task: self._submit(request, task.model, task.input),
            ("GET", "logs"): self._logs,
            ("GET", "output"): lambda request, task: self._blob(request, task.output),
            ("GET", "input"): lambda request, task: self._blob(request, task.input),
        }
        return routes[(request.method, *segments[1:])](request, task)

    def _delete_task(self, _request: Request, task: StubTask) -> None:
        del self.stub.tasks[task.id]
        self._send(204, b"", {})

    def _cancel_task(self, _request: Request, task: StubTask) -> None:
        if task.state in ENDED:
            return self._problem(409, "task_finished", task_id=task.id)
        self.stub.on_cancel(task)
        return self._json(202, task.document())

    def _submit(self, request: Request, model: str, body: bytes) -> None:
        if model not in self.stub.models:
            return self._problem(404, "model_not_found")
        task = StubTask(id=f"{len(self.stub.tasks) + 1:032x}", model=model, input=body)
        if not self.stub.keep_bodies:
            task.fields["input"] = None
        self.stub.tasks[task.id] = task
        document = task.document()
        self.stub.on_submit(task)
        return self._created(request, 202, document)

    def _held(self, seconds: float, over: Callable[[], bool]) -> None:
        deadline = time.monotonic() + (seconds if self.stub.hold_answers else 0)
        with self.stub.changed:
            while not over() and (left := deadline - time.monotonic()) > 0:
                self.stub.changed.wait(left)

    def _show_task(self, request: Request, task: StubTask) -> None:
        wait = re.fullmatch(r"wait=(\d+)", request.headers.get("Prefer", ""))
        self._held(int(wait[1]) if wait else 0, lambda: task.state in ENDED)
        self._json(200, task.document())

    def _logs(self, request: Request, task: StubTask) -> None:
        offset = int(request.query["offset"])
        self._held(float(request.query.get("wait", 0)), lambda: len(task.log) > offset or task.state in ENDED)
        with self.stub.changed:
            data, ended = task.log[offset:], task.state in ENDED
        headers = {"Content-Type": "text/plain", "X-Next-Offset": str(offset + len(data))}
        self._send(200, data, headers | {"X-Log-Complete": "true" if ended else "false"})

    def _blob(self, request: Request, data: bytes | None) -> None:
        if data is None:
            return self._problem(409, "task_failed")
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"Content-Type": "application/zip", "ETag": etag}
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if match is None or request.headers.get("If-Range", etag) != etag:
            return self._send(200, data, headers)
        start = int(match[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206, data[start:], headers)

    def _list(self, items: list[dict[str, Any]], request: Request) -> None:
        start, limit = int(request.query.get("cursor", 0)), int(request.query["limit"])
        more = str(start + limit) if start + limit < len(items) else None
        self._json(200, {"items": items[start : start + limit], "next_cursor": more})

    def _models(self, request: Request, segments: list[str]) -> None:
        stub = self.stub
        if not segments and request.method == "GET":
            return self._list(list(stub.models.values()), request)
        fields = self._fields(request) if request.method in {"POST", "PATCH"} else {}
        if not segments:
            if fields["human_readable_id"] in stub.models:
                return self._problem(409, "model_exists")
            return self._created(request, 201, stub.add_model(fields.pop("human_readable_id"), **fields))
        model = stub.models.get(segments[0])
        if model is None:
            return self._problem(404, "model_not_found")
        if request.method == "DELETE":
            del stub.models[segments[0]]
            return self._send(204, b"", {})
        model |= fields
        return self._json(200, model)

    def _fields(self, request: Request) -> dict[str, Any]:
        kind = request.headers["Content-Type"]
        if kind == "application/json":
            return dict(json.loads(request.body))
        boundary = b"--" + kind.partition("boundary=")[2].encode()
        fields: dict[str, Any] = {}
        for part in request.body.split(boundary)[1:-1]:
            head, _, value = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
            name = re.search(rb'name="(\w+)"', head)
            assert name is not None
            if name[1] == b"zip_file":
                fields["content"] = facts_of(value)
            else:
                fields[name[1].decode()] = value.decode()
        return fields

    def _keys(self, request: Request, segments: list[str]) -> None:
        if request.method == "POST":
            key = {
                "id": len(self.stub.keys) + 1,
                "created_at": "2026-11-21T08:00:00Z",
                **json.loads(request.body),
            }
            self.stub.keys.append(key)
            return self._created(request, 201, {**key, "key": "s3cret"})
        if segments == ["self"]:
            own = {"id": "own", "name": "anna", "role": "user", "created_at": "2026-11-21T08:00:00Z"}
            return self._json(200, own | {"expires_at": None, "last_used_at": None, "revoked_at": None})
        if request.method == "GET":
            return self._list(self.stub.keys, request)
        self.stub.keys = [key for key in self.stub.keys if str(key["id"]) != segments[0]]
        return self._send(204, b"", {})

    def _nodes(self, request: Request, segments: list[str]) -> None:
        if not segments:
            return self._list(list(self.stub.nodes.values()), request)
        node = self.stub.nodes.get(segments[0])
        if node is None:
            return self._problem(404, "node_not_found")
        if request.method == "DELETE":
            if node["state"] in {"ready", "draining"}:
                return self._problem(409, "node_in_use")
            del self.stub.nodes[segments[0]]
            return self._send(204, b"", {})
        if segments[1:]:
            node["draining"] = segments[1] == "drain"
            node["state"] = "draining" if node["draining"] else "ready"
        return self._json(200, node)

    def _dead_letters(self, request: Request, _segments: list[str]) -> None:
        letters = self.stub.dead_letters
        if request.method == "GET":
            shown = letters[: int(request.query["limit"])]
            return self._json(200, {"dead_letters": shown, "count": len(letters)})
        self.stub.dead_letters = []
        return self._json(200, {"removed": len(letters)})
