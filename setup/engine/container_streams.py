"""Commands inside a container with bytes going in or coming out, as many as there are, through the engine's
API.

`backup` enters. Nothing is kept in memory but the piece under way.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Any, BinaryIO

import docker

from setup.console import SetupError

PIECE_BYTES = 1024 * 1024
# Engine API, "Attach to a container": each frame has a stream's number, three zeros and a length.
_HEADER = struct.Struct(">BxxxL")
_STDOUT = 1
_KEPT_WORDS = 4000


def run(
    client: docker.DockerClient,
    container_id: str,
    command: list[str],
    *,
    source: BinaryIO | None = None,
    target: BinaryIO | None = None,
) -> str:
    """Run ``command``, its input from ``source``, its output to ``target``; what it said on standard error.

    Raises ``SetupError`` with the last of that when the command fails.
    """
    api: Any = client.api
    begun = api.exec_create(container_id, command, stdin=source is not None)["Id"]
    stream = api.exec_start(begun, socket=True)
    connection: socket.socket = getattr(stream, "_sock", stream)
    connection.settimeout(None)
    try:
        words = _exchange(connection, source, target)
    finally:
        stream.close()
    status = api.exec_inspect(begun)["ExitCode"]
    said = words.decode(errors="replace").strip()
    if status != 0:
        raise SetupError(
            f"`{' '.join(command[:4])}` ended with {status}: {said[-1000:] or 'it said nothing'}"
        )
    return said


def run_container(
    client: docker.DockerClient, container_id: str, *, source: BinaryIO, target: BinaryIO
) -> tuple[int, str]:
    """Start a container that was made for it, its input from ``source``, its output to ``target``; its exit
    code, and what it said on standard error."""
    api: Any = client.api
    asked = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    stream = api.attach_socket(container_id, params=asked)
    connection: socket.socket = getattr(stream, "_sock", stream)
    connection.settimeout(None)
    try:
        api.start(container_id)
        words = _exchange(connection, source, target)
    finally:
        stream.close()
    return int(api.wait(container_id)["StatusCode"]), words.decode(errors="replace").strip()


def _exchange(connection: socket.socket, source: BinaryIO | None, target: BinaryIO | None) -> bytes:
    if source is not None:
        # Beside the reading: a command that fails says so without having read all.
        threading.Thread(target=_send, args=(connection, source), daemon=True).start()
    words = b""
    reader = connection.makefile("rb", buffering=PIECE_BYTES)
    while header := reader.read(_HEADER.size):
        number, length = _HEADER.unpack(header)
        while length:
            data = reader.read(min(length, PIECE_BYTES))
            if not data:
                raise SetupError("The engine broke off while a command ran in a container.")
            length -= len(data)
            if number == _STDOUT and target is not None:
                target.write(data)
            else:
                words = (words + data)[-_KEPT_WORDS:]
    return words


def _send(connection: socket.socket, source: BinaryIO) -> None:
    # Where the command has ended, its exit code and its words say why.
    with suppress(OSError):
        while piece := source.read(PIECE_BYTES):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
