import hashlib
import os

import pytest

from private_api.blobs.directory import DirectoryBlobStore
from private_api.blobs.store import BlobMissingError, BlobStoreFullError


def files_in(root):
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def make_old(root):
    for file in root.rglob("*"):
        os.utime(file, (0, 0))


def test_a_blob_appears_complete_or_not_at_all(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    with store.begin() as writer:
        writer.write(b"one ")
        assert not [file for file in files_in(tmp_path) if file.startswith("inputs/")]
        writer.write(b"two")
        facts = writer.finish("inputs/a")
    assert facts.to_json() == {"size_bytes": 7, "sha256": hashlib.sha256(b"one two").hexdigest()}
    with store.open("inputs/a") as file:
        assert file.read() == b"one two"
    assert files_in(tmp_path) == ["inputs/a"]


def test_an_upload_that_is_given_up_leaves_nothing(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    with pytest.raises(ZeroDivisionError), store.begin() as writer:
        writer.write(b"x")
        raise ZeroDivisionError
    assert files_in(tmp_path) == []


def test_a_missing_blob_is_said_and_deleting_it_is_fine(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    with pytest.raises(BlobMissingError):
        store.open("inputs/a")
    store.delete("inputs/a")


def test_the_sweeper_takes_what_a_dead_process_left_and_spares_an_upload_under_way(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    (tmp_path / "unfinished" / "of-the-dead").write_bytes(b"x")
    with store.begin() as writer:
        writer.write(b"alive")
        make_old(tmp_path)
        store.sweep_unfinished()
        assert len(files_in(tmp_path)) == 1
        writer.finish("inputs/a")
    assert files_in(tmp_path) == ["inputs/a"]


def test_a_nearly_full_disk_is_said_before_and_during_an_upload(tmp_path, monkeypatch):
    store = DirectoryBlobStore(tmp_path, min_free_bytes=2**62)
    with pytest.raises(BlobStoreFullError):
        store.begin()
    store = DirectoryBlobStore(tmp_path)
    monkeypatch.setattr("private_api.blobs.directory._FLUSH_BYTES", 10)
    with pytest.raises(BlobStoreFullError), store.begin() as writer:
        monkeypatch.setattr(store, "_min_free_bytes", 2**62)
        writer.write(b"0123456789")
    assert files_in(tmp_path) == []


def test_keys_of_old_blobs_are_listed_and_uploads_are_none(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    for key in ("inputs/a", "outputs/b"):
        with store.begin() as writer:
            writer.finish(key)
    assert list(store.keys_older_than(3600)) == []
    make_old(tmp_path)
    assert sorted(store.keys_older_than(3600)) == ["inputs/a", "outputs/b"]
