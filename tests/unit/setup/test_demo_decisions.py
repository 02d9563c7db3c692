"""What the demo registers and shows, and the small facts that setup reads from files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from setup.checks.module_length import measure, too_long
from setup.embedded.demo import farewell, status_line
from setup.embedded.registration import Wanted, next_change
from setup.engine.dockerd import How, Started, recall
from setup.host.machine import read_os_release
from setup.images.busybox import is_static
from setup.images.example_images import Example
from setup.places import LONGEST_SOCKET_PATH, Places

WANTED = Wanted("digits", "reads digits", "digits:1", "sha256:new", "abc")
PRESENT = {
    "container_tag": "digits:1",
    "image_id": "sha256:new",
    "enabled": True,
    "content": {"sha256": "abc"},
}


def test_an_unknown_model_is_registered_whole() -> None:
    change = next_change(None, WANTED)
    assert change.create
    assert change.send_content
    assert change.fields["container_tag"] == "digits:1"


@pytest.mark.parametrize("image_id", ["sha256:new", None])
def test_a_registered_model_is_left_alone(image_id: str | None) -> None:
    assert next_change({**PRESENT, "image_id": image_id}, WANTED).is_nothing


def test_a_rebuilt_image_is_announced_by_its_tag() -> None:
    change = next_change({**PRESENT, "image_id": "sha256:old"}, WANTED)
    assert change.fields == {"container_tag": "digits:1"}
    assert not change.send_content


@pytest.mark.parametrize("content", [None, {"sha256": "other"}])
def test_other_weights_are_sent(content: dict[str, str] | None) -> None:
    change = next_change({**PRESENT, "content": content}, WANTED)
    assert change.send_content
    assert not change.fields


def test_a_disabled_model_is_enabled_again() -> None:
    assert next_change({**PRESENT, "enabled": False}, WANTED).fields == {"enabled": "true"}


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ({"state": "queued", "waiting_for": "a free CPU slot"}, "queued · waiting for a free CPU slot"),
        (
            {"state": "running", "progress": {"fraction": 0.4, "message": "slice 12"}},
            "running · 40% · slice 12",
        ),
        ({"state": "running", "progress": {"fraction": None, "message": None}}, "running"),
        ({"state": "succeeded", "progress": {"fraction": 0.4, "message": "slice 12"}}, "succeeded"),
    ],
)
def test_a_task_is_told_on_one_line(task: dict[str, object], line: str) -> None:
    assert status_line(task) == line


def test_the_farewell_names_port_key_and_task_as_they_are_from_the_checkout() -> None:
    places = Places(Path("/c"), Path("/c/.state"))
    example = Example(
        "digits:1", "sha256:1", Path("/c/.state/digits/model.zip"), Path("/c/.state/digits/samples")
    )
    text = farewell("http://127.0.0.1:9000", places, example)
    assert "$(cat .state/admin.key)" in text
    assert "-T .state/demo/task.zip 'http://127.0.0.1:9000/v1/tasks?model_human_readable_id=digits'" in text


def test_the_installation_id_is_made_once(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path / ".state")
    places.make()
    first = places.installation()
    assert places.installation() == first
    assert first.isalnum()
    assert stat.S_IMODE(places.state.stat().st_mode) == 0o700


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path / ("x" * LONGEST_SOCKET_PATH))
    places.make()
    found = places.supervisor_socket()
    try:
        assert len(str(found)) <= LONGEST_SOCKET_PATH
        assert stat.S_IMODE(found.parent.stat().st_mode) == 0o700
    finally:
        found.parent.rmdir()


def test_an_engine_record_is_read_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path)
    assert recall(places) is None
    places.engine_record.write_text('{"how": "process", "pid": 12, "start_time": "b:1"}')
    assert recall(places) == Started(How.PROCESS, 12, "b:1")
    places.engine_record.write_text("{")
    assert recall(places) is None


def test_os_release_is_read_with_and_without_quotes() -> None:
    text = 'ID=debian\nVERSION_CODENAME="bookworm"\n# ID=other\n'
    assert read_os_release(text) == {"ID": "debian", "VERSION_CODENAME": "bookworm"}


def _elf(kind: int) -> bytes:
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[32:40] = (64).to_bytes(8, "little")
    header[54:56] = (56).to_bytes(2, "little")
    header[56:58] = (1).to_bytes(2, "little")
    return bytes(header) + kind.to_bytes(4, "little") + bytes(52)


def test_a_static_program_has_no_interpreter() -> None:
    assert is_static(_elf(1))
    assert not is_static(_elf(3))
    assert not is_static(b"#!/bin/sh\n")


def test_only_modules_over_the_limit_are_refused_and_tests_may_grow(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name, lines in (("a.py", 400), ("b.py", 401), ("tests/test_c.py", 900)):
        (tmp_path / name).write_text("\n" * lines)
    assert [sentence.split()[0] for sentence in too_long(measure(tmp_path))] == ["b.py"]
