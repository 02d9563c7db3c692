"""What can happen to an attempt, as values: many threads put them on one queue, one loop takes them off.

A producer says only what it saw; what follows from it is ``course.py``'s and ``verdict.py``'s to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from consumer.attempt.verdict import Stop
from consumer.outside.engine import ExitWatch, LocalImage
from contracts.messages import BlobFacts
from contracts.reasons import ReasonCode


@dataclass(frozen=True, kw_only=True)
class InputReady:
    """The input lies unpacked in the workspace."""


@dataclass(frozen=True, kw_only=True)
class PullStarted:
    """The image has to come from a registry."""


@dataclass(frozen=True, kw_only=True)
class ImageResolved:
    """The image is on this node."""

    image: LocalImage


@dataclass(frozen=True, kw_only=True)
class ContainerReady:
    """The container is created, and its exit cannot be missed any more."""

    container_id: str
    watch: ExitWatch


@dataclass(frozen=True, kw_only=True)
class Exited:
    """The container's first process has ended."""

    exit_code: int


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The server has stored the output."""

    output: BlobFacts
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Prevented:
    """The attempt cannot go on, for a reason that brings its own code and sentence."""

    code: ReasonCode
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """Something says that the attempt must not go on; ``detail`` is a sentence for people."""

    stop: Stop
    detail: str = ""


Event = InputReady | PullStarted | ImageResolved | ContainerReady | Exited | Delivered | Prevented | Stopped
Emit = Callable[[Event], None]
