"""What a node and the private API say to each other about the node itself, apart from any task.

The consumer's parent process reports (``POST /v1/nodes/{name}/report``, with its worker key) when it begins,
then as often as the answer asks, at once when something changed that placement depends on, and once more when
it ends. The answer says what the operators want of the node. Values are frozen, and read as leniently as
those of ``contracts.messages``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from contracts.messages import BlobFacts, ImageSpec, Message, SlotKind


@dataclass(frozen=True, kw_only=True)
class GpuFacts(Message):
    """One GPU, or one MIG device: its UUID, the maker's name for it, its memory."""

    uuid: str
    name: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class SlotFacts(Message):
    """One slot: its kind, the UUID of its GPU where it has one, and the task that it runs now."""

    name: str
    kind: SlotKind
    gpu: str | None = None
    task_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class MachineFacts(Message):
    """The machine below the engine: cores, bytes of memory, ``x86_64`` and the like."""

    cpus: float
    memory_bytes: int
    architecture: str
    engine_version: str


@dataclass(frozen=True, kw_only=True)
class DiskFacts(Message):
    """The disk of the consumer's directory, in bytes; ``has_room`` is whether the node takes tasks."""

    total_bytes: int
    free_bytes: int
    has_room: bool


@dataclass(frozen=True, kw_only=True)
class NodeReport(Message):
    """A node's word about itself. ``instance`` is made once for each consumer directory, and lasts.

    A report of another instance under the name of one that was heard a moment ago is refused
    (``node_name_taken``). ``leaving`` is the last word of a consumer that was told to stop.
    """

    instance: str
    machine: MachineFacts
    disk: DiskFacts
    slots: list[SlotFacts]
    gpus: list[GpuFacts]
    labels: dict[str, str]
    # Tags of the models' images that the engine has, the most recently used first; cut at 200.
    images: list[str]
    leaving: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted(Message):
    """What the node should have before a task asks for it: a model's image, and its static content.

    The content is fetched from ``GET /v1/nodes/{name}/content/{sha256}``.
    """

    model: str
    image: ImageSpec
    content: BlobFacts | None


@dataclass(frozen=True, kw_only=True)
class NodeOrders(Message):
    """The answer to a report: when to come again, whether to take tasks, and what to have ready."""

    report_seconds: float
    draining: bool
    wanted: list[Wanted] = field(default_factory=list)
