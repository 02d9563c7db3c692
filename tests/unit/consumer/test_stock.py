"""Having images and contents before a task asks for them: never at the cost of anything else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import cast

import pytest

from consumer.bootstrap import build_room
from consumer.node import stock as rooms
from consumer.node.settings import Settings
from consumer.node.stock import Patience, Stock, items_of
from consumer.outside.calls import NodeCalls
from consumer.outside.engine import LocalImage
from consumer.outside.errors import ServerAwayError, SettingsError
from contracts.messages import BlobFacts, ImageSpec, PullPolicy
from contracts.nodes import Wanted
from tests.rig.polling import eventually
from tests.unit.consumer.fake_engine import FakeEngine
from tests.unit.consumer.fake_server import facts_of, zip_of

CONTENT = zip_of({"weights": b"w" * 1000})


def wanted(tag: str, content: BlobFacts | None = None, policy: PullPolicy = PullPolicy.ALWAYS) -> Wanted:
    image = ImageSpec(tag=tag, image_id=None, digest=None, pull_policy=policy)
    return Wanted(model=tag.partition(":")[0], image=image, content=content)


class Node:
    """A node with an empty engine, a registry, and a server that hands out one content."""

    def __init__(self, directory: Path, **variables: str) -> None:
        registry = {f"m{number}:1": LocalImage(image_id=f"sha256:{number}") for number in range(4)}
        self.engine = Counting(registry=registry)
        self.settings = Settings.from_environment(
            {
                "CONSUMER_DIRECTORY": str(directory),
                "MINIMUM_FREE_BYTES": "0",
                "DISK_HIGH_PERCENT": "100",
                "DISK_LOW_PERCENT": "100",
                **variables,
            }
        )
        self.settings.directory.mkdir(exist_ok=True)
        self.room = build_room(self.settings, self.engine)
        self.asked: list[tuple[str, str]] = []
        self.trouble: Exception | None = None
        self.stock = Stock(self.settings, self.engine, self.room, self._reach)

    def _reach(self) -> NodeCalls:
        if isinstance(self.trouble, SettingsError):
            raise self.trouble
        return cast(NodeCalls, self)

    def open_node_content(self, node: str, sha256: str) -> Iterator[bytes]:
        self.asked.append((node, sha256))
        if self.trouble is not None:
            raise self.trouble
        yield CONTENT


class Counting(FakeEngine):
    """Notes how many pulls ran at once, and lets them wait."""

    running = most = 0
    gate: Event | None = None

    def pull_image(self, reference: str, abandoned: Event) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while self.gate is not None and not self.gate.wait(0.01) and not abandoned.is_set():
                continue
            super().pull_image(reference, abandoned)
        finally:
            self.running -= 1


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(rooms, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(rooms, "_FIRST_PAUSE_SECONDS", 0.02)
    node = Node(tmp_path)
    yield node
    node.stock.leave()
    assert not node.stock._thread.is_alive()


def soon(look: Callable[[], object], what: str) -> None:
    eventually(look, 10, what, every=0.005)


def test_images_and_contents_come_one_at_a_time(node: Node) -> None:
    # Given two models that need the same content
    node.stock.start()
    facts = facts_of(CONTENT)
    node.stock.want([wanted("m1:1", facts), wanted("m2:1", facts), wanted("m3:1")])
    # Then all is here, each thing once
    soon(lambda: len(node.engine.pulled) == 3 and node.room.contents.has(facts.sha256), "all is here")
    assert node.engine.pulled == ["m1:1", "m2:1", "m3:1"]
    assert node.engine.most == 1
    assert node.asked == [(node.settings.node, facts.sha256)]
    # And can leave again when its room is needed
    assert node.room.contents.remove(facts.sha256)


def test_what_is_here_is_not_asked_for_again(node: Node) -> None:
    node.engine.images["m1:1"] = node.engine.registry["m1:1"]
    node.stock.start()
    node.stock.want([wanted("m1:1"), wanted("m2:1")])
    soon(lambda: node.engine.pulled, "the other comes")
    assert node.engine.pulled == ["m2:1"]


def test_nothing_comes_to_a_disk_above_its_low_watermark(node: Node, tmp_path: Path) -> None:
    full = Node(tmp_path / "full", DISK_LOW_PERCENT="0")
    full.stock.want([wanted("m1:1", facts_of(CONTENT))])
    assert not full.stock._step(items_of([wanted("m1:1", facts_of(CONTENT))]))
    assert (full.engine.pulled, full.asked) == ([], [])


def test_a_content_that_would_fill_the_disk_does_not_come(node: Node) -> None:
    huge = BlobFacts(size_bytes=2**60, sha256="0" * 64)
    assert not node.stock._step(items_of([wanted("m1:1", huge)])[1:])
    assert node.asked == []


def test_one_that_fails_is_tried_again_later_and_keeps_no_other(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.stock.start()
    node.stock.want([wanted("missing:1"), wanted("m1:1")])
    soon(lambda: "m1:1" in node.engine.pulled, "the other comes")
    soon(lambda: node.engine.pulled.count("missing:1") >= 3, "it is tried again")
    assert "missing" in caplog.text
    # When it is there after all
    node.engine.registry["missing:1"] = LocalImage(image_id="sha256:m")
    soon(lambda: "missing:1" in node.engine.images, "it comes")


@pytest.mark.parametrize("trouble", [ServerAwayError("away"), SettingsError("no key")])
def test_a_server_that_is_away_is_asked_again_and_nobody_waits_meanwhile(
    node: Node, trouble: Exception
) -> None:
    # Given a server that hands out nothing
    facts = facts_of(CONTENT)
    node.trouble = trouble
    node.stock.start()
    node.stock.want([wanted("m1:1", facts), wanted("m2:1")])
    soon(lambda: len(node.engine.pulled) == 2, "the images come")
    # Then what is missing is nobody's turn: a task may fetch it at any time
    assert not node.room.contents.has(facts.sha256)
    # And comes when it may
    node.trouble = None
    soon(lambda: node.room.contents.has(facts.sha256), "it comes")


def test_leaving_breaks_off_what_is_on_its_way(node: Node) -> None:
    node.engine.gate = Event()
    node.stock.start()
    node.stock.want([wanted("m1:1")])
    soon(lambda: node.engine.running, "it is on its way")
    node.stock.leave()
    assert not node.stock._thread.is_alive()
    assert node.engine.images == {}


def test_one_that_takes_too_long_is_broken_off(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    object.__setattr__(node.settings, "pull_seconds", 0.02)
    node.engine.gate = threading.Event()
    node.stock.start()
    node.stock.want([wanted("m1:1")])
    soon(lambda: "took longer than 0.02 s" in caplog.text, "it is said")


def test_what_made_room_for_something_else_is_not_brought_back_at_once() -> None:
    patience = Patience()
    assert patience.may("image a", 0.0)
    patience.here("image a", 0.0)
    assert not patience.may("image a", 3599.0)
    assert patience.may("image a", 3601.0)


def test_failures_make_pauses_longer_up_to_a_limit_and_are_forgotten() -> None:
    patience = Patience()
    pauses = [patience.failed("image a", 0.0) for _ in range(10)]
    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 900.0, 900.0, 900.0]
    assert not patience.may("image a", 1.0)
    assert patience.may("image b", 1.0)
    patience.forget_others(set())
    assert patience.may("image a", 1.0)
    assert patience.failed("image a", 0.0) == 10.0
