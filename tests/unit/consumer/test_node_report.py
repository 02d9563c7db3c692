"""What a node says about itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from consumer.bootstrap import build_room
from consumer.node.record import Record, RecordFile
from consumer.node.report import Survey
from consumer.node.settings import Settings
from consumer.node.slots import Slot
from consumer.outside.engine import LocalImage
from contracts.nodes import GpuFacts, NodeReport
from tests.unit.consumer.consumer_leases import lease
from tests.unit.consumer.fake_engine import FakeEngine

GPU = GpuFacts(uuid="GPU-1", name="A GPU", memory_bytes=24 * 1024**3)
SLOTS = [Slot(name="cpu-0"), Slot(name="gpu-1", gpu="GPU-1")]


class Node:
    """A node on an engine in memory."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.engine = FakeEngine()
        self.settings = Settings.from_environment(
            {"CONSUMER_DIRECTORY": str(directory), "MINIMUM_FREE_BYTES": "0", **variables}
        )
        self.room = build_room(self.settings, self.engine)
        self.survey = Survey(self.settings, self.engine, self.room, SLOTS, [GPU], "i" * 32)

    def runs(self, slot: str, tag: str) -> None:
        directory = self.settings.directory / "slots" / slot
        directory.mkdir(parents=True, exist_ok=True)
        held = lease()
        held = replace(held, image=replace(held.image, tag=tag))
        RecordFile(directory / "attempt.json").write(Record(lease=held, workspace_id="0" * 16))


def test_the_node_tells_of_its_machine_disk_slots_gpus_and_labels(tmp_path: Path) -> None:
    # Given a node whose GPU runs a model
    node = Node(tmp_path, NODE_LABELS="site=north, disk=ssd")
    node.runs("gpu-1", "repo/model:1")
    # When it reports, over the wire
    report = NodeReport.from_json(node.survey.report().to_json())
    # Then all is there
    assert report.instance == "i" * 32
    assert (report.machine.cpus, report.machine.memory_bytes) == (4.0, 8 * 1024**3)
    assert (report.machine.architecture, report.machine.engine_version) == ("x86_64", "fake")
    assert report.disk.total_bytes > report.disk.free_bytes > 0
    assert report.disk.has_room
    assert report.gpus == [GPU]
    assert report.labels == {"site": "north", "disk": "ssd"}
    assert [(slot.name, slot.kind.value, slot.gpu) for slot in report.slots] == [
        ("cpu-0", "cpu", None),
        ("gpu-1", "gpu", "GPU-1"),
    ]
    assert [slot.task_id for slot in report.slots] == [None, lease().task_id]
    assert not report.leaving
    assert node.survey.report(leaving=True).leaving


def test_the_engines_labels_are_the_nodes_and_the_operators_word_counts_before_them(tmp_path: Path) -> None:
    # Given an engine with labels, some of which no model could ask for
    node = Node(tmp_path, NODE_LABELS="site=north")
    node.engine.labels = (
        ("site", "south"), ("disk", "ssd"), ("empty", ""), ("address", "unix:///run/x"), ("a name", "x"),
    )  # fmt: skip
    # Then
    assert node.survey.report().labels == {"site": "north", "disk": "ssd", "empty": ""}


def test_images_are_those_that_models_need_and_that_are_here_the_last_needed_first(
    tmp_path: Path,
) -> None:
    # Given images of which some are of no model, and some are not here
    node = Node(tmp_path)
    here = ("repo/old:1", "repo/new", "repo/running:1", "somebody/elses:1", "repo/pulled:1")
    node.engine.images = {tag: LocalImage(image_id=f"sha256:{tag}") for tag in here}
    node.engine.images["repo/new:latest"] = node.engine.images.pop("repo/new")
    node.survey.note_needed(["repo/old:1", "repo/missing:1", "repo/new"])
    node.runs("cpu-0", "repo/running:1")
    images = node.settings.directory / "images"
    images.mkdir()
    (images / f"{'a' * 64}.pulled").write_text("repo/pulled:1\nrepo/gone:1\n")
    # Then the others are left out, and each is called as the server calls it
    assert node.survey.report().images == ["repo/running:1", "repo/new", "repo/old:1", "repo/pulled:1"]


def test_very_many_images_are_cut_short(tmp_path: Path) -> None:
    node = Node(tmp_path)
    tags = [f"repo/model:{number}" for number in range(300)]
    node.engine.images = {tag: LocalImage(image_id=f"sha256:{tag}") for tag in tags}
    node.survey.note_needed(tags)
    assert node.survey.report().images == tags[:99:-1]


def test_an_engine_that_is_away_leaves_what_was_last_known(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.engine.images = {"repo/model:1": LocalImage(image_id="sha256:1")}
    node.survey.note_needed(["repo/model:1"])
    before = node.survey.report()
    node.engine.away = True
    after = node.survey.report()
    assert (after.machine, after.images) == (before.machine, ["repo/model:1"])


def test_a_node_whose_engine_never_answered_tells_what_it_sees_itself(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.engine.away = True
    machine = node.survey.report().machine
    assert machine.cpus == float(os.cpu_count() or 1)
    assert machine.memory_bytes > 0
    assert machine.engine_version == ""


def test_a_full_disk_has_no_room(tmp_path: Path) -> None:
    node = Node(tmp_path, MINIMUM_FREE_BYTES=str(2**50))
    assert not node.survey.report().disk.has_room


def test_a_record_that_nobody_understands_is_no_task(tmp_path: Path) -> None:
    node = Node(tmp_path)
    place = node.settings.directory / "slots/cpu-0"
    place.mkdir(parents=True)
    for text in ("", "[]", '{"lease": 3}', '{"lease": {"image": null}}'):
        (place / "attempt.json").write_text(text)
        assert node.survey.report().slots[0].task_id is None, text
