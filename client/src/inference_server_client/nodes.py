"""The calls about nodes, the machines that run models, for an admin: ``client.nodes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from inference_server_client.reading import Json, moment_of, need, part, parts, want
from inference_server_client.results import Page, read_page
from inference_server_client.transport import Call, Transport, segment


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU of a node."""

    uuid: str
    name: str
    memory_bytes: int

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read one of a node's GPUs."""
        return cls(
            uuid=need(document, "uuid", str),
            name=want(document, "name", str) or "",
            memory_bytes=want(document, "memory_bytes", int) or 0,
        )


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One slot of a node: its ``kind`` (cpu or gpu), its GPU's UUID, and the task that it runs now."""

    name: str
    kind: str
    gpu: str | None
    task_id: str | None
    model: str | None

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read one of a node's slots."""
        return cls(
            name=need(document, "name", str),
            kind=need(document, "kind", str),
            gpu=want(document, "gpu", str),
            task_id=want(document, "task_id", str),
            model=want(document, "model", str),
        )


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node. Its ``state``: ready, draining, no_room, silent or left.

    ``machine`` and ``disk`` are as the server names them.
    """

    name: str
    state: str
    draining: bool
    heard_at: datetime | None
    first_heard_at: datetime | None
    machine: Json
    disk: Json
    labels: Mapping[str, str]
    slots: tuple[Slot, ...]
    gpus: tuple[Gpu, ...]
    images: tuple[str, ...]
    document: Json = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def from_json(cls, document: Json) -> Self:
        """Read a node."""
        images = document.get("images")
        labels = part(document, "labels", dict) or {}
        return cls(
            name=need(document, "name", str),
            state=need(document, "state", str),
            draining=want(document, "draining", bool) is True,
            heard_at=moment_of(document, "heard_at"),
            first_heard_at=moment_of(document, "first_heard_at"),
            machine=part(document, "machine", dict) or {},
            disk=part(document, "disk", dict) or {},
            labels={str(name): str(value) for name, value in labels.items()},
            slots=parts(document, "slots", Slot.from_json),
            gpus=parts(document, "gpus", Gpu.from_json),
            images=tuple(map(str, images)) if isinstance(images, list) else (),
            document=document,
        )


class Nodes:
    """List and show nodes, have one take no tasks, forget one that is gone."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def page(self, *, limit: int = 100, cursor: str | None = None) -> Page[Node]:
        """Up to ``limit`` (1..1000) nodes from ``cursor`` on, those that are gone too."""
        query: dict[str, str | int | float] = {"limit": limit}
        if cursor is not None:
            query["cursor"] = cursor
        return read_page(
            self._transport.json(Call(method="GET", path="/v1/nodes", query=query)), Node.from_json
        )

    def get(self, name: str) -> Node:
        """The node as it last said it is."""
        return Node.from_json(self._transport.json(Call(method="GET", path=_route(name))))

    def drain(self, name: str) -> Node:
        """Have it take no tasks from now on; what runs there goes on."""
        return self._set(name, "drain")

    def resume(self, name: str) -> Node:
        """Have it take tasks again."""
        return self._set(name, "resume")

    def forget(self, name: str) -> None:
        """Take a node that is gone off the list; the server refuses while it is heard of."""
        self._transport.remove(_route(name))

    def _set(self, name: str, what: str) -> Node:
        return Node.from_json(self._transport.json(Call(method="POST", path=f"{_route(name)}/{what}")))


def _route(name: str) -> str:
    return f"/v1/nodes/{segment(name)}"
