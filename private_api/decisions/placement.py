"""Placement: which slot may run which model, and what to say of one that no node could run. Pure.

Claims, the answers about queued tasks and the registration of models ask. A ``Requirement`` is what a model
asks of a slot, an ``Offer`` what a node's last report says of one. Limits are ceilings, not reservations: a
node with 64 GB may run several models at once that may use 32 GB each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from contracts.messages import SlotKind
from contracts.nodes import NodeReport
from private_api.decisions.limits import DEFAULT_LIMITS

# What carries "24 GB" on its box shows less: firmware keeps a part, and error correction a sixteenth.
_SHOWN = 15 / 16
_MIB, _GIB = 1024**2, 1024**3


class NodeState(StrEnum):
    """How a node stands; the first of these that applies, from the bottom up."""

    READY = "ready"  # It takes tasks.
    NO_ROOM = "no_room"  # Its disk is too full to take any.
    DRAINING = "draining"  # An operator wants it to take none.
    SILENT = "silent"  # It has not been heard of for a while.
    LEFT = "left"  # It said farewell.


def node_state(*, left: bool, silent: bool, draining: bool, has_room: bool) -> NodeState:
    """The one word for how a node stands."""
    if left:
        return NodeState.LEFT
    if silent:
        return NodeState.SILENT
    if draining:
        return NodeState.DRAINING
    return NodeState.READY if has_room else NodeState.NO_ROOM


_PRESENT = frozenset({NodeState.READY, NodeState.NO_ROOM, NodeState.DRAINING})


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What a model asks of the slot that runs it; null and empty ask nothing."""

    kind: SlotKind
    gpu_memory_bytes: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    node_labels: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What one slot has: its node's machine and labels, and its own GPU's memory, 0 where it has none."""

    kind: SlotKind
    memory_bytes: int
    cpus: float
    labels: Mapping[str, str]
    gpu_memory_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class NodeOffer:
    """A node as placement sees it: its name, how it stands, and what its slots have."""

    name: str
    state: NodeState
    slots: tuple[Offer, ...]

    @property
    def is_present(self) -> bool:
        """Whether it is there, and would run tasks if nothing stood in the way."""
        return self.state in _PRESENT


def requirement_of(
    kind: SlotKind,
    limits: Mapping[str, Any],
    gpu_memory_bytes: int | None,
    node_labels: Mapping[str, str] | None,
) -> Requirement:
    """What a model with these settings asks.

    A limit that is the server's default was chosen by nobody, and is not held against a small machine.
    """
    memory_bytes, cpus = limits["memory_bytes"], limits["cpus"]
    return Requirement(
        kind=kind,
        gpu_memory_bytes=gpu_memory_bytes if kind is SlotKind.GPU else None,
        memory_bytes=None if memory_bytes == DEFAULT_LIMITS.memory_bytes else memory_bytes,
        cpus=None if cpus == DEFAULT_LIMITS.cpus else cpus,
        node_labels=node_labels or None,
    )


def offers_of(report: NodeReport) -> tuple[Offer, ...]:
    """What the slots of a node have, in the order of its report."""
    return tuple(_offer(report, slot.kind, slot.gpu) for slot in report.slots)


def offer_of(report: NodeReport, slot_name: str, kind: SlotKind) -> Offer:
    """What the slot with this name has; one that the report does not name has its machine only."""
    gpus = [slot.gpu for slot in report.slots if slot.name == slot_name]
    return _offer(report, kind, gpus[0] if gpus else None)


def has_kind(report: NodeReport, slot_name: str, kind: SlotKind) -> bool:
    """Whether the slot with this name is of this kind; one that the report does not name may be as any."""
    named = [slot.kind for slot in report.slots if slot.name == slot_name]
    return kind in (named or [slot.kind for slot in report.slots])


def fits(asked: Requirement, offer: Offer) -> bool:
    """Whether the slot may run the model."""
    return all(demand.is_met_by(offer) for demand in _demands(asked))


def unmet(asked: Requirement, offers: Sequence[Offer]) -> str | None:
    """What the model asks and no slot has, with the most that there is; null where one of them fits.

    Where each demand alone is met, but by different slots, the first is named that those left do not meet.
    """
    demands = _demands(asked)
    for demand in demands:
        if not any(demand.is_met_by(offer) for offer in offers):
            return f"{demand.name}; {demand.best(offers, 'node')}"
    left = list(offers)
    for demand in demands:
        fitting = [offer for offer in left if demand.is_met_by(offer)]
        if not fitting:
            return f"{demand.name}; {demand.best(left, 'node that fits otherwise')}"
        left = fitting
    return None


def waiting_for(asked: Requirement, nodes: Iterable[NodeOffer]) -> str | None:
    """What a queued task waits for beside a free slot, as far as the nodes that report can tell."""
    present = [node for node in nodes if node.is_present]
    if not present:
        return f"a worker with a {asked.kind.value.upper()} slot; none is connected at the moment"
    missing = unmet(asked, [offer for node in present for offer in node.slots])
    if missing is not None:
        return missing
    able = [node for node in present if any(fits(asked, offer) for offer in node.slots)]
    states = {node.state for node in able}
    if NodeState.READY in states:
        return None
    if NodeState.NO_ROOM in states:
        return "room on a node's disk; each node that could run it has too little"
    return "a node that takes tasks; each that could run it is draining"


@dataclass(frozen=True)
class _Demand:
    """One thing that is asked: what it is called, who meets it, and how near the best of them come."""

    name: str
    is_met_by: Callable[[Offer], bool]
    best: Callable[[Sequence[Offer], str], str]


def _demands(asked: Requirement) -> list[_Demand]:
    """From what is hardest to change to what is easiest to ask less of."""
    demands = [_kind(asked.kind)]
    if asked.node_labels:
        demands.append(_labels(asked.node_labels))
    if asked.gpu_memory_bytes:
        demands.append(_memory("GPU memory", asked.gpu_memory_bytes, lambda offer: offer.gpu_memory_bytes))
    if asked.memory_bytes:
        demands.append(_memory("memory", asked.memory_bytes, lambda offer: offer.memory_bytes))
    if asked.cpus:
        demands.append(_cpus(asked.cpus))
    return demands


_KINDS = {SlotKind.GPU: "a GPU", SlotKind.CPU: "a CPU slot"}


def _kind(asked: SlotKind) -> _Demand:
    return _Demand(
        _KINDS[asked], lambda offer: offer.kind is asked, lambda _offers, which: f"no {which} has one"
    )


def _labels(asked: Mapping[str, str]) -> _Demand:
    words = [f"{name}={value}" for name, value in sorted(asked.items())]
    name, them = (f"the label {words[0]}", "it") if len(words) == 1 else (_all_of(words), "them all")
    return _Demand(
        name,
        lambda offer: asked.items() <= offer.labels.items(),
        lambda _offers, which: f"no {which} has {them}",
    )


def _all_of(words: Sequence[str]) -> str:
    return f"the labels {', '.join(words)}"


def _memory(what: str, asked: int, of: Callable[[Offer], int]) -> _Demand:
    def best(offers: Sequence[Offer], which: str) -> str:
        most = max((of(offer) for offer in offers), default=0)
        same_unit = _unit(most) == _unit(asked)
        return f"the largest {which} has {_amount(most) if same_unit else _sized(most)}"

    return _Demand(f"{_sized(asked)} of {what}", lambda offer: of(offer) >= asked * _SHOWN, best)


def _cpus(asked: float) -> _Demand:
    def best(offers: Sequence[Offer], which: str) -> str:
        return f"the largest {which} has {max((offer.cpus for offer in offers), default=0):g}"

    return _Demand(f"{asked:g} CPUs" if asked != 1 else "1 CPU", lambda offer: offer.cpus >= asked, best)


def _unit(size_bytes: int) -> str:
    return "GB" if size_bytes >= _GIB or not size_bytes else "MB"


def _amount(size_bytes: int) -> str:
    # Powers of 1024 under the short names, as makers of memory and everybody who buys it say them.
    return f"{round(size_bytes / (_GIB if _unit(size_bytes) == 'GB' else _MIB), 1):g}"


def _sized(size_bytes: int) -> str:
    return f"{_amount(size_bytes)} {_unit(size_bytes)}"


def _offer(report: NodeReport, kind: SlotKind, gpu: str | None) -> Offer:
    memory = {facts.uuid: facts.memory_bytes for facts in report.gpus}
    return Offer(
        kind=kind,
        memory_bytes=report.machine.memory_bytes,
        cpus=report.machine.cpus,
        labels=report.labels,
        gpu_memory_bytes=memory.get(gpu, 0) if gpu else 0,
    )
