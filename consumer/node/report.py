"""What a node says about itself: its machine, disk, slots and what they run, GPUs, labels and images.

The reporter enters. It only looks; an engine that is away for a moment leaves what was last known of it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from consumer.node.images import tagged
from consumer.node.room import Room
from consumer.node.settings import Settings, is_label
from consumer.node.slots import Slot
from consumer.outside.engine import Engine
from consumer.outside.errors import EngineError
from contracts.nodes import DiskFacts, GpuFacts, MachineFacts, NodeReport, SlotFacts

_log = logging.getLogger(__name__)

MOST_IMAGES = 200
MOST_LABELS = 32


class Survey:
    """Looks at one node, from its parent process."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        room: Room,
        slots: Sequence[Slot],
        gpus: Sequence[GpuFacts],
        instance: str,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._room = room
        self._slots = slots
        self._gpus = list(gpus)
        self._instance = instance
        self._machine = _own_machine()
        self._labels = dict(settings.node_labels)
        # Images that models were seen to need here, under the names that the server has for them; the last
        # needed comes last.
        self._needed: dict[str, None] = {}
        self._images: list[str] = []

    def report(self, *, leaving: bool = False) -> NodeReport:
        """The node as it is now; raises ``OSError``."""
        slots = [self._slot(slot) for slot in self._slots]
        self._look_at_engine()
        return self._with(slots, leaving=leaving)

    def glance(self) -> NodeReport:
        """The same with what the engine said last, since it is slow to list images; raises ``OSError``."""
        return self._with([self._slot(slot) for slot in self._slots], leaving=False)

    def _with(self, slots: list[SlotFacts], *, leaving: bool) -> NodeReport:
        return NodeReport(
            instance=self._instance,
            machine=self._machine,
            disk=self._disk(),
            slots=slots,
            gpus=self._gpus,
            labels=dict(self._labels),
            images=self._images,
            leaving=leaving,
        )

    def note_needed(self, tags: Sequence[str]) -> None:
        """Models need the images with these tags: reports name those that are here."""
        for tag in tags:
            self._needed.pop(tag, None)
            self._needed[tag] = None
        for tag in list(self._needed)[:-MOST_IMAGES]:
            del self._needed[tag]

    def _slot(self, slot: Slot) -> SlotFacts:
        lease = lease_on_record(self._settings.directory / "slots" / slot.name / "attempt.json")
        task_id, tag = lease.get("task_id"), (lease.get("image") or {}).get("tag")
        if tag:
            self.note_needed([str(tag)])
        return SlotFacts(
            name=slot.name, kind=slot.kind, gpu=slot.gpu, task_id=None if task_id is None else str(task_id)
        )

    def _disk(self) -> DiskFacts:
        status = os.statvfs(self._settings.directory)
        has_room = True
        try:
            has_room = self._room.shortage() is None
        except EngineError as error:
            _log.debug("the engine's disk is unknown: %s", error)
        return DiskFacts(
            total_bytes=status.f_blocks * status.f_frsize,
            free_bytes=status.f_bavail * status.f_frsize,
            has_room=has_room,
        )

    def _look_at_engine(self) -> None:
        try:
            host = self._engine.host()
            here = self._engine.image_names()
            pulled = self._room.images.references()
            needed = [tag for tag in reversed(self._needed) if self._is_here(tag, here)]
        except EngineError as error:
            _log.debug("the engine is not looked at: %s", error)
            return
        self._machine = MachineFacts(
            cpus=float(host.cpus),
            memory_bytes=host.memory_bytes,
            architecture=host.architecture,
            engine_version=host.engine_version,
        )
        # Settings are the same on every machine of a Swarm; an engine's labels are its machine's own.
        self._labels = {**usable_labels(host.labels), **dict(self._settings.node_labels)}
        self._images = list(dict.fromkeys([*needed, *(tag for tag in pulled if tag in here)]))[:MOST_IMAGES]

    def _is_here(self, tag: str, here: set[str]) -> bool:
        # The engine lists some under a shorter name; asked for one, it knows both.
        return tagged(tag) in here or self._engine.find_image(tagged(tag)) is not None


def usable_labels(labels: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of an engine's labels those that a model can ask for; some programs put other things there."""
    fitting = {name: value for name, value in labels if is_label(name, value)}
    return dict(list(fitting.items())[:MOST_LABELS])


def lease_on_record(path: Path) -> dict[str, Any]:
    """The lease in a slot's record, as JSON; empty where there is none, or none that can be read."""
    try:
        lease = json.loads(path.read_bytes())["lease"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return lease if isinstance(lease, dict) else {}


def _own_machine() -> MachineFacts:
    """What we see ourselves; the engine's word about its machine takes its place."""
    return MachineFacts(
        cpus=float(os.cpu_count() or 1),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        architecture=os.uname().machine,
        engine_version="",
    )
