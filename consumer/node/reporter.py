"""Tells the server of this node, and does what it wants of it: a thread of the parent process.

It never stands in the way of work: with a server that is away, or that is too old to ask, slots work on.
Only a name that belongs to another node keeps them from beginning, and an operator's word from taking more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from threading import Event, Thread

from consumer.metrics import show_draining
from consumer.node.intake import Closed, Intake
from consumer.node.report import Survey
from consumer.outside.backoff import delays
from consumer.outside.calls import NodeCalls
from consumer.outside.errors import CallRefusedError, ConsumerError
from contracts.nodes import NodeOrders, NodeReport
from contracts.problems import ProblemCode

_log = logging.getLogger(__name__)

# Whatever the server asks for, a node is neither silent for longer nor busier than this.
_SHORTEST_SECONDS, _LONGEST_SECONDS = 0.5, 60.0
# How often it looks whether there is something to say before its time.
_LOOK_SECONDS = 2.0
_AWAY_SECONDS = 15.0
_TAKEN_SECONDS, _REFUSED_SECONDS, _TOO_OLD_SECONDS = 3.0, 15.0, 300.0
# How often a trouble that lasts is said again.
_REMINDER_SECONDS = 30.0
# For the last word: whoever stops us waits.
_FAREWELL_SECONDS = 3.0


class Standing(Enum):
    """How the server took the last report."""

    ACCEPTED = "accepted"
    AWAY = "away"  # Nobody knows.
    TOO_OLD = "too_old"  # It has no ear for reports.
    NAME_TAKEN = "name_taken"
    REFUSED = "refused"  # A revoked key, say.


@dataclass(frozen=True, kw_only=True)
class Consequence:
    """What follows from a standing. ``closed`` None opens the node; ``keeps_intake`` leaves it as it is."""

    may_begin: bool
    keeps_intake: bool = False
    closed: Closed | None = None


def consequence(standing: Standing, *, draining: bool) -> Consequence:
    """What the node does next, by how its report was taken and what an accepted one was answered."""
    match standing:
        case Standing.ACCEPTED:
            return Consequence(may_begin=True, closed=Closed.DRAINING if draining else None)
        case Standing.NAME_TAKEN:
            return Consequence(may_begin=False, closed=Closed.NAME_TAKEN)
        case Standing.TOO_OLD:
            return Consequence(may_begin=True)
    return Consequence(may_begin=True, keeps_intake=True)


def standing_of(error: Exception) -> Standing:
    """What a report's failure says."""
    if isinstance(error, CallRefusedError):
        if error.code == ProblemCode.NODE_NAME_TAKEN:
            return Standing.NAME_TAKEN
        if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return Standing.TOO_OLD
        return Standing.REFUSED
    return Standing.AWAY


class Reporter:
    """``reach`` builds the way to the server, which may fail at first; ``heed`` hears every answer."""

    def __init__(
        self,
        node: str,
        reach: Callable[[], NodeCalls],
        survey: Survey,
        intake: Intake,
        heed: Callable[[NodeOrders], None],
    ) -> None:
        self._node = node
        self._reach = reach
        self._server: NodeCalls | None = None
        self._survey = survey
        self._intake = intake
        self._heed = heed
        # Set once slots may begin; from then on only the intake keeps them from taking tasks.
        self.may_begin = Event()
        self._leaving = Event()
        self._standing: Standing | None = None
        self._said_at = 0.0
        self._thread = Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def leave(self) -> None:
        """Say farewell, once nothing runs any more; takes a few seconds at most."""
        self._leaving.set()
        self._thread.join(_FAREWELL_SECONDS)
        if self._server is None or self._standing is not Standing.ACCEPTED:
            return
        try:
            self._server.report(self._node, self._survey.report(leaving=True), _FAREWELL_SECONDS)
        except (ConsumerError, OSError) as error:
            _log.info("no farewell: %s", error, extra={"action": "node_left"})

    def _run(self) -> None:
        pauses: Iterator[float] = delays(1.0, _AWAY_SECONDS)
        while not self._leaving.is_set():
            reported: NodeReport | None = None
            try:
                reported, orders = self._report()
            except Exception as error:  # noqa: BLE001 - Nobody else would ever tell the server of this node.
                if not isinstance(error, (ConsumerError, OSError)):
                    _log.exception("reporting failed unexpectedly", extra={"action": "report_failed"})
                standing, orders = standing_of(error), None
                self._stand(standing, error)
            else:
                self._stand(Standing.ACCEPTED)
            self._follow(orders)
            if orders is not None and reported is not None:
                pauses = delays(1.0, _AWAY_SECONDS)
                self._wait(min(max(orders.report_seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS), reported)
            else:
                self._leaving.wait(self._pause(pauses))

    def _report(self) -> tuple[NodeReport, NodeOrders]:
        if self._server is None:
            self._server = self._reach()
        report = self._survey.report()
        return report, self._server.report(self._node, report)

    def _follow(self, orders: NodeOrders | None) -> None:
        assert self._standing is not None  # noqa: S101 - For the type checker: a report has gone before.
        draining = orders is not None and orders.draining
        follows = consequence(self._standing, draining=draining)
        try:
            if not follows.keeps_intake:
                self._let_in(follows.closed)
            if orders is not None:
                self._heed(orders)
        except OSError as error:
            _log.warning("the node's directory fails: %s", error, extra={"action": "report_failed"})
        if follows.may_begin:
            self.may_begin.set()

    def _let_in(self, closed: Closed | None) -> None:
        before = self._intake.closed()
        if closed is None:
            self._intake.open()
        else:
            self._intake.close(closed)
        show_draining(draining=closed is not None)
        if before is closed:
            return
        if closed is None:
            _log.info("this node takes tasks again", extra={"action": "node_resumed", "node": self._node})
        elif closed is Closed.DRAINING:
            said = {"action": "node_draining", "node": self._node}
            _log.info("%s: no task is taken; what runs goes on", closed.value, extra=said)

    def _wait(self, seconds: float, reported: NodeReport) -> None:
        """Wait for the next report's time, or for a change that the server's choices depend on."""
        deadline = time.monotonic() + seconds
        while not self._leaving.wait(min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return
            try:
                now = self._survey.glance()
            except OSError:
                return
            if worth_saying(reported, now):
                return

    def _pause(self, pauses: Iterator[float]) -> float:
        match self._standing:
            case Standing.NAME_TAKEN:
                return _TAKEN_SECONDS
            case Standing.TOO_OLD:
                return _TOO_OLD_SECONDS
            case Standing.REFUSED:
                return _REFUSED_SECONDS
        return next(pauses)

    def _stand(self, standing: Standing, error: Exception | None = None) -> None:
        """Note how the report was taken; say so at each change, and now and then what needs an operator."""
        changed, self._standing = standing is not self._standing, standing
        lasts = standing in {Standing.NAME_TAKEN, Standing.REFUSED}
        if not changed and not (lasts and time.monotonic() - self._said_at >= _REMINDER_SECONDS):
            return
        self._said_at = time.monotonic()
        said = {"action": f"node_{standing.value}", "node": self._node}
        match standing:
            case Standing.ACCEPTED:
                _log.info("the server knows this node as %s", self._node, extra=said)
            case Standing.NAME_TAKEN:
                _log.error(
                    "another consumer works as %s: no task is taken here until it leaves or this one has a "
                    "name of its own (NODE_NAME)",
                    self._node,
                    extra=said,
                )
            case Standing.TOO_OLD:
                _log.info("the server takes no reports of nodes; working on without", extra=said)
            case Standing.AWAY:
                _log.info("no report: %s", error, extra=said)
            case Standing.REFUSED:
                _log.warning("the server refuses this node's report: %s", error, extra=said)


def worth_saying(before: NodeReport, now: NodeReport) -> bool:
    """Whether something changed that the server's choices depend on; what runs it knows already."""

    def matters(report: NodeReport) -> tuple[object, ...]:
        gpus = [gpu.uuid for gpu in report.gpus]
        return report.disk.has_room, [slot.name for slot in report.slots], gpus, set(report.images)

    return matters(before) != matters(now)
