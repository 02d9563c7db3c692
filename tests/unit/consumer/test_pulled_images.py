"""Which images are ours to remove: those that we pulled, whoever was killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from consumer.node.eviction import Entry
from consumer.node.pulled_images import PulledImages
from consumer.outside.engine import LocalImage
from consumer.outside.errors import NotFoundError, PreventedError, RefusedError
from contracts.messages import ImageSpec, PullPolicy
from contracts.reasons import ReasonCode
from tests.unit.consumer.fake_engine import FakeEngine

TAG = "repo/model:1"
HEX = "a" * 64
PULLABLE = LocalImage(image_id=f"sha256:{HEX}", digests=(f"repo/model@sha256:{'d' * 64}",), size_bytes=7)
BUILT = LocalImage(image_id=f"sha256:{'b' * 64}")
SPEC = ImageSpec(tag=TAG, image_id=None, digest=None, pull_policy=PullPolicy.IF_MISSING)
FULL = "failed to register layer: write /x: no space left on device"


@pytest.fixture
def uses() -> Iterator[ExitStack]:
    with ExitStack() as uses:
        yield uses


def use(images: PulledImages, uses: ExitStack, spec: ImageSpec = SPEC) -> LocalImage:
    return images.use(spec, Event(), uses, pulling=lambda: None)


def ids(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


def test_what_was_pulled_is_ours_and_goes_once_nobody_uses_it(tmp_path: Path, uses: ExitStack) -> None:
    engine = FakeEngine(registry={TAG: PULLABLE})
    images = PulledImages(engine, tmp_path)
    # Given an image that was pulled and is used
    assert use(images, uses) == PULLABLE
    [entry] = images.entries(disk=3)
    assert (entry.name, entry.size_bytes, entry.disk) == (PULLABLE.image_id, 7, 3)
    # Then it stays until nobody uses it
    assert not images.remove(PULLABLE.image_id)
    uses.close()
    assert images.remove(PULLABLE.image_id)
    assert engine.images == {}
    # And nothing is left of its record
    assert images.entries(disk=3) == []
    assert list(tmp_path.iterdir()) == []


def test_what_was_here_before_is_not_ours(tmp_path: Path, uses: ExitStack) -> None:
    images = PulledImages(FakeEngine(images={TAG: PULLABLE}), tmp_path)
    use(images, uses)
    assert images.entries(disk=1) == []


def test_what_a_pull_did_not_bring_is_not_ours(tmp_path: Path, uses: ExitStack) -> None:
    # Given an image that somebody has here under another name too
    engine = FakeEngine(images={"mine:1": PULLABLE}, registry={TAG: PULLABLE})
    images = PulledImages(engine, tmp_path)
    # When the pull finds that it has all already
    use(images, uses)
    # Then
    assert engine.pulled == [TAG]
    assert images.entries(disk=1) == []


def test_a_pull_that_fails_leaves_no_note(tmp_path: Path, uses: ExitStack) -> None:
    with pytest.raises(PreventedError):
        use(PulledImages(FakeEngine(), tmp_path), uses)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "ours"),
    [(PULLABLE, True), (BUILT, False), (None, False)],
    ids=["it had ended", "somebody has built one of that name since", "it had not ended"],
)
def test_a_pull_of_a_killed_process_is_looked_at_again(
    tmp_path: Path, found: LocalImage | None, ours: bool
) -> None:
    # Given the note of a pull whose process is no more
    note = tmp_path / f"{'e' * 64}.pulling"
    note.write_text(json.dumps({"reference": TAG, "before": []}))
    engine = FakeEngine(images={} if found is None else {TAG: found})
    images = PulledImages(engine, tmp_path)
    # When the node is tidied
    images.sweep()
    # Then only what must have come from a registry is ours
    assert ids(images.entries(disk=1)) == [PULLABLE.image_id] * ours
    assert not note.exists()


def test_an_image_that_somebody_removed_is_forgotten(tmp_path: Path, uses: ExitStack) -> None:
    engine = FakeEngine(registry={TAG: PULLABLE})
    images = PulledImages(engine, tmp_path)
    use(images, uses)
    uses.close()
    engine.images.clear()
    assert images.entries(disk=1) == []
    assert list(tmp_path.iterdir()) == []


class Full(FakeEngine):
    """An engine whose disk is full until somebody makes room."""

    has_room = False

    def pull_image(self, reference: str, abandoned: Event) -> None:
        if not self.has_room:
            raise RefusedError(500, FULL)
        super().pull_image(reference, abandoned)


def test_a_pull_without_room_is_tried_again_once_there_is_some(tmp_path: Path, uses: ExitStack) -> None:
    engine = Full(registry={TAG: PULLABLE})

    def relieve() -> bool:
        engine.has_room = True
        return True

    images = PulledImages(engine, tmp_path)
    assert images.use(SPEC, Event(), uses, pulling=lambda: None, relieve=relieve) == PULLABLE


def test_where_nothing_can_go_the_node_is_full(tmp_path: Path, uses: ExitStack) -> None:
    with pytest.raises(PreventedError) as caught:
        use(PulledImages(Full(registry={TAG: PULLABLE}), tmp_path), uses)
    assert caught.value.code is ReasonCode.NODE_FULL


def test_an_image_that_goes_before_it_is_held_is_pulled_again(tmp_path: Path, uses: ExitStack) -> None:
    # Given a pulled image that is removed just after it was found
    class Hasty(FakeEngine):
        hurried = False

        def find_image(self, reference: str) -> LocalImage | None:
            found = super().find_image(reference)
            if found is not None and not self.hurried and reference == TAG:
                self.hurried = True
                del self.images[TAG]
            return found

    engine = Hasty(images={TAG: PULLABLE}, registry={TAG: PULLABLE})
    images = PulledImages(engine, tmp_path)
    (tmp_path / f"{HEX}.pulled").write_text(f"{TAG}\n")
    # When it is used
    assert use(images, uses) == PULLABLE
    # Then it has come again
    assert engine.pulled == [TAG]
    assert engine.find_image(TAG) is not None


def test_a_registry_that_does_not_have_it_says_so_in_its_words(tmp_path: Path, uses: ExitStack) -> None:
    with pytest.raises(PreventedError) as caught:
        use(PulledImages(FakeEngine(), tmp_path), uses)
    assert isinstance(caught.value.__cause__, NotFoundError)
