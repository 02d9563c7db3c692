"""What a bundle says of itself, and what the next one leaves out because of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from setup.bundle import lists, manifest
from setup.bundle.manifest import Image, Layer, Manifest
from setup.console import SetupError

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")
BASE_IMAGE = Image("ours/python:3", "sha256:1", "2026-11-01T00:00:00Z", (A,))
SERVICE = Image("ours/api:1", "sha256:2", "2026-11-01T00:00:01Z", (A, B, C))


def release(*images: Image, **changes: object) -> Manifest:
    made = Manifest(
        version="2.0.0",
        created="2026-11-21T15:00:00Z",
        architecture="amd64",
        source="local",
        setup_image="ours/setup:1",
        images=images,
        settings={"IMAGES": "local", "API_IMAGE": "ours/api:1"},
        layers={layer: Layer(f"hash of {layer[7]}", 10) for layer in manifest.layers_of(images)},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_manifest_is_read_as_it_was_written() -> None:
    written = release(BASE_IMAGE, SERVICE, brought=(A, B), since="1.9.0 (abc)", files={"install": "00"})
    assert manifest.parse(manifest.render(written), "x") == written


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": 1, "release": "x"}', b"\x1f\x8b"])
def test_anything_else_is_refused_by_its_name(text: str | bytes) -> None:
    with pytest.raises(SetupError, match=r"old\.json"):
        manifest.parse(text, "old.json")


def test_two_builds_of_one_version_are_told_apart() -> None:
    later = replace(SERVICE, created="2026-11-02T00:00:00Z")
    assert release(SERVICE).release != release(later).release
    assert release(SERVICE).release.startswith("2.0.0 (")
    # The order in which images are listed says nothing.
    assert release(SERVICE, BASE_IMAGE).release == release(BASE_IMAGE, SERVICE).release


def test_a_first_bundle_brings_everything() -> None:
    images = (BASE_IMAGE, SERVICE)
    assert manifest.changed(images, None) == [BASE_IMAGE, SERVICE]
    assert manifest.wanted_layers(images, None) == {A, B, C}
    assert manifest.needed_lines(images, None) == []


def test_the_next_brings_what_changed_and_names_what_it_counts_on() -> None:
    # Given a service whose code changed
    base = release(BASE_IMAGE, SERVICE)
    later = replace(SERVICE, id="sha256:3", created="2026-11-02T00:00:00Z", layers=(A, B, D))
    # Then only its new layer travels, and the target must have the others
    assert manifest.changed((BASE_IMAGE, later), base) == [later]
    assert manifest.wanted_layers((BASE_IMAGE, later), base) == {D}
    assert manifest.needed_lines((BASE_IMAGE, later), base) == [f"{A} hash of a", f"{B} hash of b"]


def test_an_image_under_a_new_name_travels_without_layers() -> None:
    base = release(SERVICE)
    renamed = replace(SERVICE, tag="ours/api:2")
    assert manifest.changed((renamed,), base) == [renamed]
    assert manifest.wanted_layers((renamed,), base) == set()


def test_a_change_of_settings_alone_is_a_change_of_the_image() -> None:
    # The layers are the same; what it starts with is not.
    base = release(SERVICE)
    assert manifest.changed((replace(SERVICE, created="2026-11-02T00:00:00Z"),), base)


def test_the_archive_is_named_by_what_is_in_it() -> None:
    assert manifest.archive_name("2.1.0") == "inferenceserver-2.1.0.tar"
    assert manifest.archive_name("2.1.0", "2.0.0") == "inferenceserver-2.1.0-since-2.0.0.tar"


def test_the_lists_for_the_shell_say_the_same() -> None:
    base = release(BASE_IMAGE, SERVICE)
    later = replace(SERVICE, created="2026-11-02T00:00:00Z", layers=(A, B, D))
    facts = lists.facts(release(BASE_IMAGE, later, since=base.release), base)
    assert facts["release/images"].decode().splitlines() == [
        f"earlier|ours/python:3|2026-11-01T00:00:00Z {A}",
        f"brought|ours/api:1|2026-11-02T00:00:00Z {A} {B} {D}",
    ]
    assert f"since {base.release}\n" in facts["release/facts"].decode()
    assert facts["release/variables"] == b"API_IMAGE=ours/api:1\nIMAGES=local\n"


def test_an_operator_sets_ports_but_not_images() -> None:
    settings = lists.settings()
    assert {"HTTPS_PORT", "PUBLISH_ADDRESS", "CPU_SLOTS", "PURGE"} <= set(settings)
    assert not [name for name in settings if name.endswith("_IMAGE")]
