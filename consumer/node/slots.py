"""The slots of this node: how many, of which kind, and which GPU belongs to which.

The parent process enters to learn what to start. A slot holds one task at a time; a GPU belongs to one slot.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from contracts.messages import SlotKind


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place for one running task. ``gpu`` is the UUID of its GPU, null for a CPU slot."""

    name: str
    gpu: str | None = None

    @property
    def kind(self) -> SlotKind:
        """What this slot claims; a GPU is never held by a task that has no use for it."""
        return SlotKind.GPU if self.gpu else SlotKind.CPU


def plan_slots(cpu_slots: int | None, gpus: tuple[str, ...], cores: int) -> list[Slot]:
    """The slots for so many cores and these GPUs; ``cpu_slots`` overrides the default."""
    if cpu_slots is None:
        cpu_slots = 1 if gpus else max(1, cores // 2)
    names = [Slot(name=f"cpu-{index}") for index in range(cpu_slots)]
    return names + [Slot(name=gpu_slot_name(uuid, gpus), gpu=uuid) for uuid in gpus]


def gpu_slot_name(uuid: str, gpus: tuple[str, ...]) -> str:
    """A short stable name for a GPU's slot: the first group of its UUID, or all of it where that is
    ambiguous.

    It does not depend on the order in which a machine lists its GPUs, so a slot finds its own leftovers
    again.
    """
    short = uuid.split("-")[1]
    alone = sum(other.split("-")[1] == short for other in gpus) == 1
    prefix = "gpu" if uuid.startswith("GPU-") else "mig"
    return f"{prefix}-{short if alone else re.sub(r'[^A-Za-z0-9]', '-', uuid[4:])}".lower()


def slots_of_machine(cpu_slots: int | None, gpus: tuple[str, ...]) -> list[Slot]:
    """The slots that the settings, this machine and its GPUs make together."""
    return plan_slots(cpu_slots, gpus, os.cpu_count() or 1)
