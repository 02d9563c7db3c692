"""Tiny images made on the spot from a static busybox, without a registry and without a builder."""

from __future__ import annotations

import io
import json
import secrets
import tarfile
from pathlib import Path

from consumer.outside.docker_engine import DockerEngine

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh", "cat", "cp", "echo", "sleep", "dd", "yes", "true", "ls", "mkdir", "touch", "wget", "id", "truncate",
    "tail",
)  # fmt: skip


class Images:
    """Makes an image per script; all are removed in the end."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._run = secrets.token_hex(4)
        self.made: list[str] = []

    def script(self, script: str, *changes: str) -> str:
        """An image whose program is the shell script."""
        return self.entrypoint(f'ENTRYPOINT ["/bin/sh", "-c", {json.dumps(script)}]', *changes)

    def entrypoint(self, *changes: str) -> str:
        tag = f"t{len(self.made)}"
        self._engine.import_image(_archive(), f"consumer-test-{self._run}", tag, list(changes))
        self.made.append(f"consumer-test-{self._run}:{tag}")
        return self.made[-1]


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        program = tarfile.TarInfo("bin/busybox")
        content = BUSYBOX.read_bytes()
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        note = tarfile.TarInfo("etc/note")
        note.size, note.mode = 4, 0o644
        tar.addfile(note, io.BytesIO(b"note"))
    return buffer.getvalue()
