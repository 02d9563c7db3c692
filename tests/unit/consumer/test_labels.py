"""Telling what we made from what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.node.residence import HostPaths
from consumer.node.workspace import Workspaces
from consumer.outside import labels
from consumer.outside.engine import LocalImage
from consumer.outside.labels import Owner, is_ours
from consumer.slot.cleaning import remove_other_slots
from tests.unit.consumer.fake_engine import FakeEngine

OWNER = Owner(installation="inst", node="node", slot="cpu-0")
ID = "0123456789abcdef"
MODEL = OWNER.labels() | {labels.ROLE: labels.ROLE_MODEL, labels.WORKSPACE: ID}
HOLDER = OWNER.labels() | {labels.ROLE: labels.ROLE_HOLDER}
CONTENT = OWNER.shared_labels() | {labels.ROLE: labels.ROLE_CONTENT}


@pytest.mark.parametrize(
    ("given_name", "carried", "ours"),
    [
        (f"inferenceserver-{ID}", MODEL, True),
        (f"inferenceserver-{ID}-output", MODEL, True),
        (OWNER.holder_name, HOLDER, True),
        (f"{OWNER.shared_name}-content-0", CONTENT, True),
        # Somebody's container, made from an image with our labels, or from a committed container of ours.
        ("friendly_curie", MODEL, False),
        ("friendly_curie", HOLDER, False),
        ("inferenceserver-" + "f" * 16, MODEL, False),
        ("inferenceserver-x", MODEL | {labels.WORKSPACE: "x"}, False),
        ("friendly_curie", OWNER.labels(), False),
        (f"inferenceserver-{ID}", {k: v for k, v in MODEL.items() if k != labels.SLOT}, False),
    ],
)
def test_labels_and_name_must_agree(given_name: str, carried: dict[str, str], ours: bool) -> None:
    wanted = OWNER.shared_labels() if labels.SLOT not in carried and ours else OWNER.labels()
    assert is_ours(given_name, carried, wanted) is ours


def test_another_slots_things_are_not_this_ones() -> None:
    other = Owner(installation="inst", node="node", slot="cpu-1")
    assert not is_ours(f"inferenceserver-{ID}", MODEL, other.labels())


def test_owners_that_read_alike_have_names_of_their_own() -> None:
    one = Owner(installation="a", node="b-c", slot="cpu-0")
    two = Owner(installation="a-b", node="c", slot="cpu-0")
    assert one.holder_name != two.holder_name
    assert one.shared_name != two.shared_name


def test_a_container_that_only_inherits_our_labels_is_left_alone(tmp_path: Path) -> None:
    # Given a container of ours, and one that somebody made by hand from an image that carries the same labels
    engine = FakeEngine(images={"x": LocalImage(image_id="sha256:1")})
    body = {"Image": "x", "Labels": MODEL | {labels.WORKSPACE: "f" * 16}}
    engine.create_container({"Image": "x", "Labels": MODEL}, f"inferenceserver-{ID}")
    stranger = engine.create_container(body, "friendly_curie")
    # Then only ours is found to be swept
    assert Workspaces(engine, tmp_path / "work", OWNER, HostPaths.same(tmp_path)).found() == {ID}
    # And only ours is removed when its slot is no more
    remove_other_slots(engine, OWNER, tmp_path, {"cpu-1"})
    assert list(engine.containers) == [stranger]
