"""What every blob store does, on a directory and on a real S3 store."""

import hashlib
import io
import os
import random
import zipfile

import pytest

from archives.inspection import inspect_zip
from archives.limits import ZipLimits
from private_api.blobs.directory import DirectoryBlobStore
from private_api.blobs.s3_upload import part_bytes_for
from private_api.blobs.store import BlobMissingError
from tests.integration.private_api.buckets import s3_store, store_bytes

MEBIBYTE = 1024 * 1024
# Nothing; one request; exactly one part, and a byte more; several parts, the last of them short.
PART_BYTES = part_bytes_for(0)
SIZES = [0, 7, PART_BYTES, PART_BYTES + 1, 20 * MEBIBYTE + 12_345]


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path):
    if request.param == "directory":
        return DirectoryBlobStore(tmp_path)
    return s3_store(request.getfixturevalue("s3"))


@pytest.mark.parametrize("size", SIZES)
def test_what_is_stored_is_what_is_read_and_its_facts_are_true(store, size):
    data = random.Random(size).randbytes(size)
    facts = store_bytes(store, "inputs/a", data)
    assert facts.to_json() == {"size_bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    with store.open("inputs/a") as file:
        assert file.read() == data
        assert file.read(1) == b""


def test_a_blob_is_not_there_before_it_is_finished(store):
    with store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(bytes(9 * MEBIBYTE))
        with pytest.raises(BlobMissingError):
            store.open("inputs/a")
        writer.finish()
    store.open("inputs/a").close()


@pytest.mark.parametrize("size", [10, 9 * MEBIBYTE])
def test_an_upload_that_is_given_up_leaves_no_blob(store, size):
    with pytest.raises(ZeroDivisionError), store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(bytes(size))
        raise ZeroDivisionError
    with pytest.raises(BlobMissingError):
        store.open("inputs/a")
    assert list(store.keys_older_than(-10)) == []


def test_a_blob_is_read_from_anywhere(store):
    data = random.Random(1).randbytes(3 * MEBIBYTE)
    store_bytes(store, "outputs/a", data)
    with store.open("outputs/a") as file:
        assert file.seekable()
        assert file.seek(0, os.SEEK_END) == len(data)
        assert file.read(10) == b""
        for offset, size in ((2 * MEBIBYTE, 100), (5, 5), (10, 2 * MEBIBYTE), (len(data) - 3, 100)):
            assert file.seek(offset) == offset
            assert file.read(size) == data[offset : offset + size]
            assert file.tell() == min(offset + size, len(data))
        file.seek(-4, os.SEEK_END)
        assert file.read() == data[-4:]


def test_a_zip_is_inspected_where_it_lies(store):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.bin", random.Random(number).randbytes(MEBIBYTE))
    store_bytes(store, "inputs/zip", buffer.getvalue())
    with store.open("inputs/zip") as file:
        assert inspect_zip(file, ZipLimits()).entries == 3


def test_a_missing_blob_is_said_and_deleting_it_is_fine(store):
    with pytest.raises(BlobMissingError):
        store.open("inputs/a")
    store.delete("inputs/a")


@pytest.mark.parametrize("size", [10, 9 * MEBIBYTE])
def test_a_deleted_blob_is_gone(store, size):
    store_bytes(store, "inputs/a", bytes(size))
    store.delete("inputs/a")
    with pytest.raises(BlobMissingError):
        store.open("inputs/a")
    assert list(store.keys_older_than(-10)) == []


def test_the_keys_of_old_blobs_are_listed_and_no_others(store):
    for key in ("inputs/a", "contents/b", "outputs/c"):
        store_bytes(store, key, b"x")
    assert list(store.keys_older_than(3600)) == []
    assert sorted(store.keys_older_than(-10)) == ["contents/b", "inputs/a", "outputs/c"]


def test_a_store_that_works_says_so(store):
    store.check()
