"""One attempt on an engine and against a server in memory, ready to run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

from consumer.attempt.run import Attempt
from consumer.bootstrap import build_station
from consumer.node.record import Record
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.outside.engine import LocalImage
from consumer.outside.server import Server
from consumer.slot.cleaning import Cleaner
from contracts.messages import Lease
from contracts.reasons import ReasonCode
from tests.rig.polling import eventually
from tests.unit.consumer.consumer_leases import lease
from tests.unit.consumer.fake_engine import FakeContainer, FakeEngine
from tests.unit.consumer.fake_server import FakeServer, facts_of, zip_of

IMAGES = {"repo/model:1": LocalImage(image_id="sha256:1")}


def echo(container: FakeContainer) -> int:
    container.log += b"working\n"
    for path in container.directory("/input").iterdir():
        (container.directory("/output") / path.name).write_bytes(path.read_bytes())
    return 0


def until_killed(container: FakeContainer) -> int:
    container.killed.wait()
    return 0


class Bench:
    """One attempt, with its record, and all that it works with."""

    def __init__(
        self, directory: Path, program: Any = echo, kind: type[FakeEngine] = FakeEngine, **fields: Any
    ) -> None:
        self.engine = kind(images=IMAGES, program=program)
        self.server = FakeServer(zip_of({"a.txt": b"a"}))
        settings = Settings.from_environment(
            {"CONSUMER_DIRECTORY": str(directory), "MINIMUM_FREE_BYTES": "0", "CLAIM_WAIT_SECONDS": "0.1"}
        )
        self.station = build_station(
            settings, Slot(name="cpu-0"), engine=self.engine, server=cast(Server, self.server)
        )
        self.lease: Lease = lease(**({"input": facts_of(self.server.input)} | fields))
        self.cleaner = Cleaner(self.station.workspaces)
        self.workspace = self.cleaner.create()
        self.station.record.write(Record(lease=self.lease, workspace_id=self.workspace.workspace_id))
        self.attempt = Attempt(self.station, self.lease, self.workspace, "holder")

    def run(self) -> FakeServer:
        self.attempt.run()
        return self.server

    def run_beside(self) -> threading.Thread:
        thread = threading.Thread(target=self.attempt.run)
        thread.start()
        return thread

    @property
    def code(self) -> ReasonCode | None:
        assert (self.server.failure is None) != (self.server.completion is None), "exactly one last word"
        return None if self.server.failure is None else self.server.failure.reason_code


def wait_until(condition: Any) -> None:
    eventually(condition, 30, "what the test waits for", every=0.005)
