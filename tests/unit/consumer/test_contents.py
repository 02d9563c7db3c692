"""Static content on a node: complete before it has its name, and never more than the disk can spare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from consumer.node.contents import Contents
from consumer.node.fetching import Allowance, fetch_and_unpack
from consumer.node.residence import HostPaths
from consumer.outside.errors import AbandonedError, PreventedError
from consumer.outside.labels import Owner
from contracts.reasons import ReasonCode
from tests.unit.consumer.fake_engine import FakeEngine
from tests.unit.consumer.fake_server import facts_of, zip_of

OWNER = Owner(installation="inst", node="node", slot="cpu-0")
ZIP = zip_of({"weights.bin": b"w" * 1000, "more/labels.txt": b"labels"})


def contents(engine: FakeEngine, directory: Path) -> Contents:
    return Contents(engine, directory, OWNER, HostPaths.same(directory))


def stream() -> Iterator[bytes]:
    yield ZIP


def test_all_of_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that tells what is brought to it
    synced: list[str] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real_fsync(descriptor)

    monkeypatch.setattr("consumer.node.contents.os.fsync", fsync)
    engine = FakeEngine()
    # When content is fetched
    with ExitStack() as uses:
        name = contents(engine, tmp_path).use(
            facts_of(ZIP), stream, Event(), uses, Allowance(keep_free_bytes=0)
        )
    # Then its files and directories were synced under their first name, and the new name last
    *before, last = synced
    incoming = {path.partition(".incoming/")[2] for path in before}
    assert incoming == {"data", "data/weights.bin", "data/more", "data/more/labels.txt"}
    assert last == str(tmp_path)
    assert engine.volumes[name][0] == str(tmp_path / facts_of(ZIP).sha256)


def fetch(directory: Path, keep_free_bytes: int, abandoned: Event) -> None:
    destination = directory / "input"
    destination.mkdir()
    fetch_and_unpack(
        stream,
        facts_of(ZIP),
        directory / "input.zip",
        destination,
        abandoned,
        invalid=ReasonCode.INPUT_INVALID,
        allowance=Allowance(keep_free_bytes=keep_free_bytes),
    )


@pytest.mark.parametrize("spare", [len(ZIP) - 1, len(ZIP) + 500])
def test_what_would_fill_the_disk_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    # Given a disk with no room for the zip, or for the zip but not for what it holds
    def statvfs(path: Path) -> os.statvfs_result:
        there = sum(file.stat().st_size for file in tmp_path.iterdir() if file.is_file())
        free = 5000 + spare - there
        return os.statvfs_result((1, 1, 10**12, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr("consumer.node.usage.os.statvfs", statvfs)
    # When it comes
    with pytest.raises(PreventedError) as caught:
        fetch(tmp_path, 5000, Event())
    # Then it is tried elsewhere or later, and nothing was unpacked
    assert caught.value.code is ReasonCode.NODE_FULL
    assert list((tmp_path / "input").iterdir()) == []
    # And the zip was fetched only where it had room
    assert (tmp_path / "input.zip").exists() == (spare >= len(ZIP))


def test_what_fits_is_unpacked_and_its_zip_removed(tmp_path: Path) -> None:
    fetch(tmp_path, 0, Event())
    assert (tmp_path / "input" / "weights.bin").read_bytes() == b"w" * 1000
    assert not (tmp_path / "input.zip").exists()


def test_what_nobody_wants_is_not_unpacked(tmp_path: Path) -> None:
    abandoned = Event()
    abandoned.set()
    with pytest.raises(AbandonedError):
        fetch(tmp_path, 0, abandoned)
