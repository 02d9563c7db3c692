"""The front door for programs: ``Client`` holds one server's address and key, and the groups of calls.

    from inference_server_client import Client

    client = Client("https://inference.example.org", key)
    task = client.run("digits", "pictures/", "results/")

A client may be shared by threads. Nothing here prints or reads the environment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from inference_server_client.address import DEFAULT_SERVER, check_key, parse_server_address
from inference_server_client.dead_letters import DeadLetters
from inference_server_client.following import Event, follow
from inference_server_client.keys import Keys
from inference_server_client.models import Models
from inference_server_client.nodes import Nodes
from inference_server_client.packing import plan_package, ready_zip, write_package
from inference_server_client.results import Task
from inference_server_client.retries import RetryPolicy
from inference_server_client.tasks import Tasks, raise_unless_succeeded
from inference_server_client.transport import OnRetry, Transport
from inference_server_client.unpacking import unpack


class Client:
    """One server, as one key sees it: ``tasks``, ``models``, ``keys``, ``nodes`` and ``dead_letters``."""

    def __init__(
        self,
        url: str = DEFAULT_SERVER,
        key: str | None = None,
        *,
        ca_cert: str | Path | None = None,
        retry: RetryPolicy | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        """``url`` may hold the key (``https://user:KEY@host``); ``key`` wins over it.

        ``on_retry`` is told each error that is met with another attempt, and the seconds until then.
        """
        address = parse_server_address(url)
        chosen = check_key(key) if key is not None else address.key
        transport = Transport(
            address, chosen, ca_cert=Path(ca_cert) if ca_cert else None, retry=retry, on_retry=on_retry
        )
        self.url = address.url
        self._transport = transport
        self.tasks = Tasks(transport)
        self.models = Models(transport)
        self.keys = Keys(transport)
        self.nodes = Nodes(transport)
        self.dead_letters = DeadLetters(transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def follow(
        self,
        task_id: str,
        *,
        log_offset: int = 0,
        with_log: bool = True,
        timeout_seconds: float | None = None,
    ) -> Iterator[Event]:
        """Changes of a task and its log as they happen, until it has ended."""
        return follow(
            self.tasks, task_id, log_offset=log_offset, with_log=with_log, timeout_seconds=timeout_seconds
        )

    def run(self, model: str, source: str | Path, directory: str | Path, *, overwrite: bool = False) -> Task:
        """Send a file, directory or zip, wait, and unpack the result into ``directory``.

        Raises ``TaskFailedError`` or ``TaskCanceledError`` where there is no result.
        """
        target = Path(directory)
        with tempfile.TemporaryDirectory(prefix="infer-") as scratch:
            archive = ready_zip([Path(source)])
            if archive is None:
                archive = Path(scratch) / "input.zip"
                with archive.open("wb") as stream:
                    write_package(plan_package([Path(source)], leave_out=target), stream)
            task = self.tasks.wait(self.tasks.submit(model, archive).id)
            raise_unless_succeeded(task)
            output = self.tasks.download_output(task, Path(scratch) / "output.zip")
            unpack(output, target, overwrite=overwrite)
        return task
