"""Commands inside a container with bytes going in or coming out, as many as there are, through the engine's
API.

`backup` enters. Nothing is kept in memory but the piece under way.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    status, said = attempt(client, container_id, command, source=source, target=target)
    if status != 0:
        raise SetupError(
            f"`{' '.join(command[:4])}` ended with {status}: {said[-1000:] or 'it said nothing'}"
        )
    return said


def attempt(
    client: docker.DockerClient,
    container_id: str,
    command: list[str],
    *,
    user: str = "",
    source: BinaryIO | None = None,
    target: BinaryIO | None = None,
) -> tuple[int, str]:
    """Run ``command`` as ``run`` does; its exit code, and what it said on standard error."""
    api: Any = client.api
    begun = api.exec_create(container_id, command, user=user, stdin=source is not None)["Id"]
    address = api._url("/exec/{0}/start", begun)
    with _taken_over(api, address, json={"Detach": False, "Tty": False}) as connection:
        words = _exchange(*connection, source, target)
    return int(api.exec_inspect(begun)["ExitCode"]), words.decode(errors="replace").strip()


def run_container(
    client: docker.DockerClient, container_id: str, *, source: BinaryIO, target: BinaryIO
) -> tuple[int, str]:
    """Start a container that was made for it, its input from ``source``, its output to ``target``; its exit
    code, and what it said on standard error."""
    api: Any = client.api
    asked = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
    address = api._url("/containers/{0}/attach", container_id)
    with _taken_over(api, address, params=asked) as connection:
        api.start(container_id)
        words = _exchange(*connection, source, target)
    return int(api.wait(container_id)["StatusCode"]), words.decode(errors="replace").strip()


@contextmanager
def _taken_over(api: Any, address: str, **asked: Any) -> Iterator[tuple[BinaryIO, socket.socket]]:
    """A connection that the engine leaves to a command's streams: where to read, and where to write.

    The SDK's own `exec_start` and `attach_socket` give the bare socket. What came together with the head of
    the engine's answer has been read from that already, and its first bytes would be missing.
    """
    answer = api._post(address, stream=True, headers={"Connection": "Upgrade", "Upgrade": "tcp"}, **asked)
    try:
        api._raise_for_status(answer)
        reader = answer.raw._fp.fp
        connection: socket.socket = reader.raw._sock
        connection.settimeout(None)
        yield reader, connection
    finally:
        answer.close()


def _exchange(
    reader: BinaryIO, connection: socket.socket, source: BinaryIO | None, target: BinaryIO | None
) -> bytes:
    if source is not None:
        # Beside the reading: a command that fails says so without having read all.
        threading.Thread(target=_send, args=(connection, source), daemon=True).start()
    words = b""
    broken = SetupError("The engine broke off while a command ran in a container.")
    while header := reader.read(_HEADER.size):
        if len(header) < _HEADER.size:
            raise broken
        number, length = _HEADER.unpack(header)
        while length:
            data = reader.read(min(length, PIECE_BYTES))
            if not data:
                raise broken
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
