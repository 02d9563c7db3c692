"""What only the directory does; what every blob store does is in the integration tests."""

import os

import pytest

from private_api.blobs.directory import DirectoryBlobStore
from private_api.blobs.store import BLOB_KINDS, BlobStoreFullError


def files_in(root):
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file())


def make_old(root):
    for file in root.rglob("*"):
        os.utime(file, (0, 0))


def test_only_the_blob_is_left_of_an_upload_and_nothing_of_one_that_is_given_up(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    with store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(b"x")
        writer.finish()
    with pytest.raises(ZeroDivisionError), store.begin("inputs/b", declared_bytes=None) as writer:
        writer.write(b"x")
        raise ZeroDivisionError
    assert files_in(tmp_path) == ["inputs/a"]


def test_the_sweeper_takes_what_a_dead_process_left_and_spares_an_upload_under_way(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    (tmp_path / "unfinished" / "of-the-dead").write_bytes(b"x")
    with store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(b"alive")
        make_old(tmp_path)
        store.sweep_unfinished()
        assert len(files_in(tmp_path)) == 1
        writer.finish()
    assert files_in(tmp_path) == ["inputs/a"]


def test_what_lies_beside_the_blobs_is_not_offered_to_the_sweeper(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    for kind in (*BLOB_KINDS, "lost+found"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "old").touch()
    make_old(tmp_path)
    assert sorted(store.keys_older_than(60)) == sorted(f"{kind}/old" for kind in BLOB_KINDS)


def test_a_nearly_full_disk_is_said_before_and_during_an_upload(tmp_path, monkeypatch):
    store = DirectoryBlobStore(tmp_path, min_free_bytes=2**62)
    with pytest.raises(BlobStoreFullError):
        store.begin("inputs/a", declared_bytes=None)
    store = DirectoryBlobStore(tmp_path)
    monkeypatch.setattr("private_api.blobs.directory._FLUSH_BYTES", 10)
    with pytest.raises(BlobStoreFullError), store.begin("inputs/a", declared_bytes=None) as writer:
        monkeypatch.setattr(store, "_min_free_bytes", 2**62)
        writer.write(b"0123456789")
    assert files_in(tmp_path) == []


def test_an_upload_that_says_it_will_not_fit_is_refused_before_its_first_byte(tmp_path):
    with pytest.raises(BlobStoreFullError):
        DirectoryBlobStore(tmp_path).begin("inputs/a", declared_bytes=2**62)
    assert files_in(tmp_path) == []


def test_keys_of_old_blobs_are_listed_and_uploads_are_none(tmp_path):
    store = DirectoryBlobStore(tmp_path)
    for key in ("inputs/a", "outputs/b"):
        with store.begin(key, declared_bytes=None) as writer:
            writer.finish()
    assert list(store.keys_older_than(3600)) == []
    make_old(tmp_path)
    assert sorted(store.keys_older_than(3600)) == ["inputs/a", "outputs/b"]
