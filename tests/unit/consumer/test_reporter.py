"""How a node tells the server of itself, and what it does at each answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from consumer.node import reporter as rooms
from consumer.node.intake import Closed, Intake
from consumer.node.report import Survey
from consumer.node.reporter import (
    Consequence,
    Reporter,
    Standing,
    consequence,
    standing_of,
    worth_saying,
)
from consumer.outside.calls import NodeCalls
from consumer.outside.errors import CallRefusedError, ServerAwayError, SettingsError
from contracts.messages import SlotKind
from contracts.nodes import DiskFacts, GpuFacts, MachineFacts, NodeOrders, NodeReport, SlotFacts
from tests.rig.polling import eventually

ORDERS = NodeOrders(report_seconds=0.5, draining=False)
TAKEN = CallRefusedError(409, "node_name_taken", "another instance was heard")
REPORT = NodeReport(
    instance="i" * 32,
    machine=MachineFacts(cpus=4.0, memory_bytes=1, architecture="x86_64", engine_version="1"),
    disk=DiskFacts(total_bytes=2, free_bytes=1, has_room=True),
    slots=[SlotFacts(name="cpu-0", kind=SlotKind.CPU)],
    gpus=[],
    labels={},
    images=["a"],
)


class Node:
    """A reporter of a node whose server and survey are the test's."""

    def __init__(self, directory: Path) -> None:
        self.now = REPORT
        self.answer: NodeOrders | Exception = ORDERS
        self.heard: list[NodeReport] = []
        self.heeded: list[NodeOrders] = []
        self.reached = threading.Event()
        self.reached.set()
        self.intake = Intake(directory)
        survey = cast(Survey, self)
        self.reporter = Reporter("node", self._reach, survey, self.intake, self.heeded.append)

    def _reach(self) -> NodeCalls:
        if not self.reached.is_set():
            raise SettingsError("WORKER_KEY_FILE: there is no key")
        return cast(NodeCalls, self)

    # As NodeCalls.
    def glance(self) -> NodeReport:
        return self.now

    def report(self, *arguments: object, leaving: bool = False) -> NodeReport | NodeOrders:
        if not arguments:
            # As Survey.
            return replace(self.now, leaving=leaving)
        assert arguments[0] == "node"
        self.heard.append(cast(NodeReport, arguments[1]))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def open_node_content(self, node: str, sha256: str) -> Iterator[bytes]:
        raise AssertionError("nobody wants content here")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(rooms, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(rooms, "_TAKEN_SECONDS", 0.01)
    monkeypatch.setattr(rooms, "_REFUSED_SECONDS", 0.01)
    monkeypatch.setattr(rooms, "delays", lambda *_: iter([0.01] * 10_000))
    node = Node(tmp_path)
    yield node
    node.reporter._leaving.set()
    node.reporter._thread.join(10)


def soon(look: Callable[[], object], what: str) -> None:
    eventually(look, 10, what, every=0.005)


def test_slots_begin_once_the_server_knows_the_node(node: Node) -> None:
    assert not node.reporter.may_begin.is_set()
    node.reporter.start()
    assert node.reporter.may_begin.wait(10)
    assert node.heard[0] == REPORT
    assert node.heeded[0] == ORDERS
    assert node.intake.closed() is None


def test_the_server_says_how_often_and_is_told_at_once_of_what_matters(node: Node) -> None:
    # Given a server that wants to hear rarely
    node.answer = NodeOrders(report_seconds=60.0, draining=False)
    node.reporter.start()
    soon(lambda: node.heard, "the first report")
    # When the disk fills up
    node.now = replace(REPORT, disk=replace(REPORT.disk, has_room=False))
    # Then it is told before its time
    soon(lambda: node.heard[-1] == node.now, "another report")
    assert len(node.heard) == 2


@pytest.mark.parametrize(
    ("change", "worth"),
    [
        ({"disk": replace(REPORT.disk, has_room=False)}, True),
        ({"images": ["a", "b"]}, True),
        ({"gpus": [GpuFacts(uuid="GPU-1", name="", memory_bytes=0)]}, True),
        ({"disk": replace(REPORT.disk, free_bytes=0)}, False),
        ({"slots": [replace(REPORT.slots[0], task_id="1" * 32)]}, False),
    ],
)
def test_what_is_worth_a_report_before_its_time(change: dict[str, object], worth: bool) -> None:
    assert worth_saying(REPORT, replace(REPORT, **change)) is worth  # type: ignore[arg-type]


def test_an_operator_drains_and_resumes(node: Node) -> None:
    node.reporter.start()
    soon(lambda: node.heeded, "accepted")
    # When an operator drains the node
    node.answer = replace(ORDERS, draining=True)
    soon(lambda: node.intake.closed() is Closed.DRAINING, "closed")
    # And the server goes away, which changes nothing
    node.answer = ServerAwayError("away")
    before = len(node.heard)
    soon(lambda: len(node.heard) > before + 3, "more reports")
    assert node.intake.closed() is Closed.DRAINING
    # And then resumes it
    node.answer = ORDERS
    soon(lambda: node.intake.closed() is None, "open again")


@pytest.mark.parametrize(
    "answer",
    [
        ServerAwayError("nobody answers"),
        CallRefusedError(401, "unauthenticated", "no"),
        CallRefusedError(404, "not_found", "an older server"),
    ],
)
def test_a_server_that_is_away_or_old_keeps_nobody_from_working(node: Node, answer: Exception) -> None:
    node.answer = answer
    node.reporter.start()
    assert node.reporter.may_begin.wait(10)
    assert node.intake.closed() is None


def test_a_key_that_is_not_there_yet_keeps_nobody_from_beginning(node: Node) -> None:
    node.reached.clear()
    node.reporter.start()
    assert node.reporter.may_begin.wait(10)
    assert node.heard == []
    # And once it is there, the node reports
    node.reached.set()
    soon(lambda: node.heeded, "accepted")


def test_a_name_that_is_taken_keeps_slots_from_beginning_until_it_is_free(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.answer = TAKEN
    node.reporter.start()
    soon(lambda: len(node.heard) > 5, "several reports")
    assert not node.reporter.may_begin.is_set()
    # Then that is said once, and how to help it
    [said] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "NODE_NAME" in said.getMessage()
    # When the other leaves
    node.answer = ORDERS
    assert node.reporter.may_begin.wait(10)
    assert node.intake.closed() is None


def test_a_name_that_is_lost_at_work_closes_the_node(node: Node) -> None:
    node.reporter.start()
    assert node.reporter.may_begin.wait(10)
    node.answer = TAKEN
    soon(lambda: node.intake.closed() is Closed.NAME_TAKEN, "closed")
    node.answer = ORDERS
    soon(lambda: node.intake.closed() is None, "open again")


def test_what_lasts_is_said_again_now_and_then(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rooms, "_REMINDER_SECONDS", 0.0)
    node.answer = TAKEN
    node.reporter.start()
    soon(lambda: len(caplog.records) >= 3, "said several times")


def test_the_last_word_is_a_farewell(node: Node) -> None:
    node.reporter.start()
    soon(lambda: node.heeded, "accepted")
    node.reporter.leave()
    assert [report.leaving for report in node.heard[-2:]] == [False, True]


def test_nobody_says_farewell_under_anothers_name(node: Node) -> None:
    node.answer = TAKEN
    node.reporter.start()
    soon(lambda: node.heard, "a report")
    node.reporter.leave()
    assert not any(report.leaving for report in node.heard)


def test_a_mistake_of_ours_does_not_end_the_reports(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.answer = ZeroDivisionError()
    node.reporter.start()
    assert node.reporter.may_begin.wait(10)
    node.answer = ORDERS
    soon(lambda: node.heeded, "accepted after all")
    assert "reporting failed unexpectedly" in caplog.text


@pytest.mark.parametrize(
    ("standing", "draining", "follows"),
    [
        (Standing.ACCEPTED, False, Consequence(may_begin=True)),
        (Standing.ACCEPTED, True, Consequence(may_begin=True, closed=Closed.DRAINING)),
        (Standing.NAME_TAKEN, False, Consequence(may_begin=False, closed=Closed.NAME_TAKEN)),
        (Standing.TOO_OLD, False, Consequence(may_begin=True)),
        (Standing.AWAY, False, Consequence(may_begin=True, keeps_intake=True)),
        (Standing.REFUSED, False, Consequence(may_begin=True, keeps_intake=True)),
    ],
)
def test_what_follows(standing: Standing, draining: bool, follows: Consequence) -> None:
    assert consequence(standing, draining=draining) == follows


@pytest.mark.parametrize(
    ("error", "standing"),
    [
        (TAKEN, Standing.NAME_TAKEN),
        (CallRefusedError(404, "", ""), Standing.TOO_OLD),
        (CallRefusedError(405, "method_not_allowed", ""), Standing.TOO_OLD),
        (CallRefusedError(403, "forbidden", ""), Standing.REFUSED),
        (ServerAwayError("away"), Standing.AWAY),
        (OSError(28, "full"), Standing.AWAY),
    ],
)
def test_what_a_failure_says(error: Exception, standing: Standing) -> None:
    assert standing_of(error) is standing
