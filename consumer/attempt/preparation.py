"""Getting an attempt ready: the input on one thread; image, static content and container on another.

An attempt enters with its queue; both threads put what they achieved on it, or why they failed. They look at
``abandoned`` between steps and leave quietly when it is set.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Thread

from consumer.attempt.events import (
    ContainerReady,
    Emit,
    ImageResolved,
    InputReady,
    Prevented,
    PullStarted,
    Stopped,
)
from consumer.attempt.sandbox import Place, container_body, volume_fault
from consumer.attempt.verdict import Stop, start_failure
from consumer.node.fetching import Allowance, fetch_and_unpack
from consumer.node.station import Station, forced_user, open_files
from consumer.node.workspace import Workspace
from consumer.outside.errors import (
    AbandonedError,
    EngineAwayError,
    EngineError,
    PreventedError,
    RefusedError,
    StaleLeaseError,
)
from contracts.messages import Lease
from contracts.reasons import ReasonCode
from serving.logs import same_work

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The two threads of one attempt's preparation."""

    station: Station
    lease: Lease
    workspace: Workspace
    holder: str
    emit: Emit
    abandoned: Event

    def start(self) -> list[Thread]:
        """Begin; the returned threads may still be at work when the attempt is over."""
        threads = [
            producer(self._fetch_input, self.emit, "input"),
            producer(self._make_container, self.emit, "container"),
        ]
        for thread in threads:
            thread.start()
        return threads

    def _fetch_input(self) -> None:
        server, lease = self.station.server, self.lease
        fetch_and_unpack(
            lambda: server.open_input(lease),
            lease.input,
            self.workspace.download,
            self.workspace.input,
            self.abandoned,
            invalid=ReasonCode.INPUT_INVALID,
            allowance=self._allowance(),
        )
        self.emit(InputReady())

    def _make_container(self) -> None:
        # Until the container has them, nobody may remove image and content to make room.
        with ExitStack() as uses:
            self._create_container(uses)

    def _create_container(self, uses: ExitStack) -> None:
        engine = self.station.engine
        image = self.station.images.use(
            self.lease.image,
            self.abandoned,
            uses,
            pulling=lambda: self.emit(PullStarted()),
            relieve=self.station.room.relieve_engine,
        )
        self.emit(ImageResolved(image=image))
        fault = volume_fault(self.lease, image)
        if fault is not None:
            raise PreventedError(ReasonCode.IMAGE_INVALID, fault)
        volume = self._content_volume(uses)
        if self.abandoned.is_set():
            return
        body = container_body(self.lease, image, self._place(volume))
        try:
            container_id = engine.create_container(body, self.workspace.container_name)
        except RefusedError as error:
            raise PreventedError(*start_failure(error.message)) from error
        # From here on no exit can be missed, however short the model runs.
        watch = engine.watch_exit(container_id, before_start=True)
        if self.abandoned.is_set():
            watch.close()
            return
        self.emit(ContainerReady(container_id=container_id, watch=watch))

    def _content_volume(self, uses: ExitStack) -> str | None:
        server, lease = self.station.server, self.lease
        if lease.content is None:
            return None
        return self.station.contents.use(
            lease.content, lambda: server.open_content(lease), self.abandoned, uses, self._allowance()
        )

    def _allowance(self) -> Allowance:
        station = self.station
        return Allowance(keep_free_bytes=station.settings.minimum_free_bytes, relieve=station.room.relieve)

    def _place(self, model_volume: str | None) -> Place:
        workspace = self.workspace
        return Place(
            owner=self.station.owner,
            workspace=workspace.workspace_id,
            input_volume=workspace.volume("input"),
            output_volume=workspace.volume("output"),
            progress_volume=workspace.volume("progress"),
            model_volume=model_volume,
            holder=self.holder,
            network=self.station.network.ensure() if self.lease.sandbox.network else None,
            gpu=self.station.slot.gpu,
            runtime=self.station.settings.container_runtime,
            forced_user=forced_user(),
            open_files=open_files(),
            cores=os.cpu_count() or 1,
        )


def producer(work: Callable[[], None], emit: Emit, name: str) -> Thread:
    """A thread for ``work``, whose failure becomes an event of the attempt."""

    def run() -> None:
        try:
            work()
        except AbandonedError:
            return
        except Exception as error:  # noqa: BLE001 - Nobody else would ever hear of it; the loop decides.
            emit(failure_event(error))

    return Thread(target=same_work(run), name=name, daemon=True)


def failure_event(error: Exception) -> Prevented | Stopped:
    """What a producer's failure means for the attempt."""
    if isinstance(error, PreventedError):
        return Prevented(code=error.code, sentence=error.sentence)
    if isinstance(error, StaleLeaseError):
        return Stopped(stop=Stop.LEASE_LOST, detail=str(error))
    if isinstance(error, EngineAwayError):
        return Stopped(stop=Stop.ENGINE_LOST, detail=str(error))
    if isinstance(error, EngineError):
        return Prevented(code=ReasonCode.ENGINE_FAILED, sentence=f"The container engine failed: {error}")
    _log.error("unexpected failure", exc_info=error, extra={"action": "attempt_failed_unexpectedly"})
    return Prevented(
        code=ReasonCode.INTERNAL_ERROR, sentence=f"The worker made a mistake ({type(error).__name__})."
    )
