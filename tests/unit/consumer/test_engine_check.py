"""Which engines are fit, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from consumer.node.engine_check import check_engine
from consumer.node.residence import HostPaths
from consumer.outside.engine import EngineFacts
from consumer.outside.errors import EngineError, NotFoundError
from consumer.outside.labels import Owner
from tests.unit.consumer.fake_engine import FakeEngine

OWNER = Owner(installation="inst", node="node", slot="check")
FACTS = EngineFacts(version="fake", api_version=(1, 41), os="linux", architecture="amd64")


def test_a_fit_engine_passes_and_nothing_is_left(tmp_path: Path) -> None:
    engine = FakeEngine()
    assert check_engine(engine, HostPaths.same(tmp_path), OWNER) == FACTS
    assert engine.containers == {}
    assert engine.volumes == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(FACTS, api_version=(1, 40)), "1.41 is needed"),
        (replace(FACTS, os="windows"), "linux"),
        (replace(FACTS, architecture="s390x"), "s390x"),
    ],
)
def test_an_unfit_engine_is_refused_with_the_reason(
    tmp_path: Path, facts: EngineFacts, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(engine, "facts", lambda: facts)
    with pytest.raises(EngineError, match=words):
        check_engine(engine, HostPaths.same(tmp_path), OWNER)


@pytest.mark.parametrize("seen", [None, b"another file"])
def test_an_engine_that_does_not_see_our_files_is_refused(
    tmp_path: Path, seen: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_file(_container_id: str, path: str) -> bytes:
        if seen is None:
            raise NotFoundError(path)
        return seen

    engine = FakeEngine()
    monkeypatch.setattr(engine, "read_file", read_file)
    with pytest.raises(EngineError, match="cannot see the directory"):
        check_engine(engine, HostPaths.same(tmp_path), OWNER)
    assert engine.containers == {}
    assert engine.volumes == {}


def test_the_engine_is_given_what_it_calls_our_directory(tmp_path: Path) -> None:
    # Given a directory that the engine knows under another name
    engine = FakeEngine()
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "ours").mkdir()
    elsewhere.symlink_to(tmp_path / "ours")
    asked: list[str] = []
    create_volume = engine.create_volume

    def noting(name: str, device: str, labels: dict[str, str]) -> None:
        asked.append(device)
        create_volume(name, device, labels)

    engine.create_volume = noting  # type: ignore[method-assign, assignment]
    # When it is checked
    check_engine(engine, HostPaths(ours=tmp_path / "ours", on_host=PurePosixPath(elsewhere)), OWNER)
    # Then it was shown the file under that name
    assert [device.startswith(f"{elsewhere}/probe-") for device in asked] == [True]
