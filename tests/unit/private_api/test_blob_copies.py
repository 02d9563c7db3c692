"""Blobs out of one store and into another, through a tar; damage on the way is noticed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from contracts.messages import BlobFacts
from private_api.blobs.directory import DirectoryBlobStore
from private_api.copies import CopyError, compare, export_blobs, import_blobs

BLOBS = {"inputs/a": b"first", "outputs/b": b"", "contents/c": bytes(3_000_000)}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBlobStore:
    store = DirectoryBlobStore(tmp_path / "before")
    for key, data in BLOBS.items():
        with store.begin(key, declared_bytes=None) as writer:
            writer.write(data)
            writer.finish()
    return store


def facts_of(blobs: dict[str, bytes]) -> dict[str, BlobFacts]:
    return {
        key: BlobFacts(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for key, data in blobs.items()
    }


def exported(store: DirectoryBlobStore) -> bytes:
    target = io.BytesIO()
    assert export_blobs(store, target) == facts_of(BLOBS)
    return target.getvalue()


def test_what_goes_out_comes_in_again(store: DirectoryBlobStore, tmp_path: Path) -> None:
    after = DirectoryBlobStore(tmp_path / "after")
    assert import_blobs(after, io.BytesIO(exported(store))) == facts_of(BLOBS)
    for key, data in BLOBS.items():
        with after.open(key) as blob:
            assert blob.read() == data


@pytest.mark.parametrize("kept", [0, 600, 2_000_000, -11_000])
def test_a_copy_that_was_cut_off_is_refused(store: DirectoryBlobStore, tmp_path: Path, kept: int) -> None:
    with pytest.raises(CopyError, match=r"cut off|damaged"):
        import_blobs(DirectoryBlobStore(tmp_path / "after"), io.BytesIO(exported(store)[:kept]))


def test_a_blob_that_is_another_is_named(store: DirectoryBlobStore, tmp_path: Path) -> None:
    text = exported(store).replace(b"first", b"worst")
    with pytest.raises(CopyError, match="inputs/a"):
        import_blobs(DirectoryBlobStore(tmp_path / "after"), io.BytesIO(text))


def test_a_tar_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("inputs/link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(CopyError, match="is no blob"):
        import_blobs(DirectoryBlobStore(tmp_path / "after"), io.BytesIO(packed.getvalue()))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/outside", "inputs/../../outside", "elsewhere/x", "inputs/"]
)
def test_a_name_that_is_no_blobs_is_refused(tmp_path: Path, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(CopyError, match="is no blob"):
        import_blobs(DirectoryBlobStore(tmp_path / "after"), io.BytesIO(packed.getvalue()))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_the_database_counts_on_is_held_against_what_came() -> None:
    expected = facts_of({"inputs/a": b"1", "inputs/b": b"2", "inputs/c": b"3"})
    found = facts_of({"inputs/a": b"1", "inputs/b": b"other", "inputs/of-a-later-task": b"4"})
    assert compare(expected, found) == {"blobs": 3, "expected": 3, "missing": 1, "damaged": 1}
