"""A registry that has a few tiny images, for engines that must pull.

Protocol: OCI distribution specification 1.1, as far as a pull goes, with Docker's manifests (image manifest,
version 2, schema 2). The engine speaks plain HTTP to the loopback.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class StockedRegistry:
    """Listens on a port of its own until it is closed; ``pulled`` counts pulls of manifests by path.

    With a ``login`` (``user:password``, which may change) it hands nothing out to anybody else; ``refused``
    counts those.
    """

    def __init__(self, login: str | None = None) -> None:
        self.pulled: list[str] = []
        self.login = login
        self.refused = 0
        # By digest; tags are paths to manifests.
        self._blobs: dict[str, tuple[str, bytes]] = {}
        self._tags: dict[str, str] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                if not self._is_let_in():
                    registry.refused += 1
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="stock"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                kind, body, digest = registry._find(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                if digest:
                    self.send_header("Docker-Content-Digest", digest)
                self.end_headers()
                if self.command == "GET":
                    if "/manifests/" in self.path:
                        registry.pulled.append(self.path)
                    self.wfile.write(body or b"")

            def _is_let_in(self) -> bool:
                if registry.login is None:
                    return True
                expected = base64.b64encode(registry.login.encode()).decode()
                return bool(self.headers["Authorization"] == f"Basic {expected}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - The library's name.
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def add(self, repository: str, tag: str, script: str) -> str:
        """Stock an image whose program is a shell script, and return its name; a tag may be given anew."""
        layer = _layer()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sh", "-c", script]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._store(_CONFIG, json.dumps(config).encode()),
            "layers": [self._store(_LAYER, gzip.compress(layer, mtime=0))],
        }
        stored = self._store(_MANIFEST, json.dumps(manifest).encode())
        self._tags[f"/v2/{repository}/manifests/{tag}"] = str(stored["digest"])
        return f"{self.address}/{repository}:{tag}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _store(self, kind: str, body: bytes) -> dict[str, object]:
        digest = _digest(body)
        self._blobs[digest] = (kind, body)
        return {"mediaType": kind, "size": len(body), "digest": digest}

    def _find(self, path: str) -> tuple[str, bytes | None, str]:
        if path == "/v2/":
            return "application/json", b"{}", ""
        digest = self._tags.get(path, path.rpartition("/")[2])
        kind, body = self._blobs.get(digest, ("application/json", None))
        return kind, body, digest if body is not None else ""


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        content = Path("/bin/busybox").read_bytes()
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
    return buffer.getvalue()


def _digest(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
