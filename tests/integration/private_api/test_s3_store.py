"""What only the S3 store does: multipart uploads and their remains, requests and connections, its answers."""

import contextlib
import io
import os
import random
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from archives.inspection import inspect_zip
from archives.limits import ZipLimits
from private_api.blobs.choice import open_blob_store
from private_api.blobs.s3_upload import part_bytes_for
from private_api.blobs.store import BlobStoreFullError, BlobStoreUnavailableError
from private_api.settings import Settings, SettingsError
from tests.integration.private_api.buckets import s3_settings, s3_store, store_bytes

MEBIBYTE = 1024 * 1024
LARGE = random.Random(3).randbytes(14 * MEBIBYTE)


@pytest.fixture
def store(s3):
    return s3_store(s3)


def unfinished(store):
    return sorted(key for key, _, _ in store._bucket.uploads())


def requests_of(store):
    pools = store._bucket._client._http.pools
    return sum(pools[key].num_requests for key in pools.keys())  # noqa: SIM118 - urllib3's container refuses to be iterated.


# Before the first upload.


def test_a_prepared_store_takes_many_first_uploads_at_once_and_has_nothing_unfinished(store):
    # Swift keeps parts in a bucket of their own, and begins to know of it only some seconds after making it.
    assert unfinished(store) == []
    with ThreadPoolExecutor(8) as pool:
        stored = pool.map(lambda number: store_bytes(store, f"inputs/{number}", LARGE), range(8))
        assert {blob.size_bytes for blob in stored} == {len(LARGE)}
    assert unfinished(store) == []


# The remains of multipart uploads.


def test_an_upload_that_is_given_up_is_aborted_at_once(store):
    with pytest.raises(ZeroDivisionError), store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(LARGE)
        assert unfinished(store) == ["inputs/a"]
        raise ZeroDivisionError
    assert unfinished(store) == []


def test_the_sweeper_aborts_old_uploads_of_the_dead_and_none_of_the_living(store, monkeypatch):
    # Given what a dead process left, and an upload under way here
    store._bucket.begin_upload("inputs/dead")
    with store.begin("inputs/alive", declared_bytes=None) as writer:
        writer.write(LARGE)
        # When the sweeper passes before anything is old, nothing happens
        store.sweep_unfinished()
        assert unfinished(store) == ["inputs/alive", "inputs/dead"]
        # When both have become old, only the dead one's goes
        monkeypatch.setattr("private_api.blobs.s3._UNFINISHED_SECONDS", -60)
        store.sweep_unfinished()
        assert unfinished(store) == ["inputs/alive"]
        assert writer.finish().size_bytes == len(LARGE)
    assert unfinished(store) == []


@pytest.mark.parametrize(
    ("most_bytes", "part_bytes"),
    [(0, 6 * MEBIBYTE), (60_000 * MEBIBYTE, 6 * MEBIBYTE), (60_000 * MEBIBYTE + 1, 7 * MEBIBYTE)],
)
def test_ten_thousand_parts_are_enough_for_any_blob(most_bytes, part_bytes):
    assert part_bytes_for(most_bytes) == part_bytes
    assert part_bytes * 10_000 >= most_bytes


# Requests and connections.


def test_a_small_blob_costs_one_request_to_store_and_one_to_look_into_and_send(store):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a", "hi")
    before = requests_of(store)
    store_bytes(store, "inputs/a", zipped.getvalue())
    assert requests_of(store) - before == 1
    with store.open("inputs/a") as file:
        assert inspect_zip(file, ZipLimits()).entries == 1
        file.seek(0)
        assert file.read() == zipped.getvalue()
    assert requests_of(store) - before == 2


def test_a_large_zip_is_looked_into_by_its_end_alone(store):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a", LARGE)
    store_bytes(store, "inputs/a", zipped.getvalue())
    before = requests_of(store)
    with store.open("inputs/a") as file:
        inspect_zip(file, ZipLimits())
    assert requests_of(store) - before == 3


def test_connections_do_not_pile_up_whatever_readers_do(store):
    store_bytes(store, "outputs/a", LARGE)

    def read_somehow(amount):
        with store.open("outputs/a") as file:
            file.read(amount)
            file.seek(-amount, os.SEEK_END)
            file.read(amount // 2)

    read_somehow(100)
    before = open_files()
    for amount in (100, MEBIBYTE, 5 * MEBIBYTE, len(LARGE)) * 3:
        read_somehow(amount)
    assert open_files() <= before + 1


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


# What is signed for people.


def test_a_direct_address_is_of_the_host_that_people_reach(s3):
    settings = s3_settings(s3, blob_public_url="https://store.example.org:9443")
    url = open_blob_store(Settings(**settings)).direct_url("outputs/a", filename="o.zip")
    assert url.startswith(f"https://store.example.org:9443/{settings['s3_bucket']}/outputs/a?")
    assert "X-Amz-Expires=900&" in url
    assert open_blob_store(Settings(**s3_settings(s3))).direct_url("outputs/a", filename="o.zip") is None


def test_a_directory_has_no_address_to_give(tmp_path):
    with pytest.raises(SettingsError, match="BLOB_PUBLIC_URL"):
        open_blob_store(Settings(blob_directory=tmp_path, blob_public_url="http://store"))


# Answers that the store used here never gives, and others do.


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content_type, body = self.server.answers[self.command]
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # Whoever has seen enough leaves.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    do_PUT = do_POST = do_GET = do_DELETE = _answer  # noqa: N815


@pytest.fixture
def strange():
    """A store of which the test says how it answers each method."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def store_at(server):
    url = f"http://127.0.0.1:{server.server_port}"
    return open_blob_store(
        Settings(blob_store="s3", s3_endpoint=url, s3_access_key="key", s3_secret_key="secret")
    )


def error_of(code):
    return b"<Error><Code>%s</Code><Message>No.</Message></Error>" % code.encode()


@pytest.mark.parametrize(
    "answer",
    [
        (507, "application/xml", error_of("XMinioStorageFull")),
        (507, "text/html", b"Insufficient Storage"),
        (403, "application/xml", error_of("QuotaExceeded")),
        (413, "application/xml", error_of("EntityTooLarge")),
    ],
)
def test_a_full_store_is_known_by_each_of_its_names(strange, answer):
    strange.answers = {"PUT": answer}
    with pytest.raises(BlobStoreFullError):
        store_bytes(store_at(strange), "inputs/a", b"x")


@pytest.mark.parametrize(
    "answer",
    [
        (500, "application/xml", error_of("InternalError")),
        (502, "text/html", b"<h1>Bad gateway</h1>"),
        (200, "application/xml", b"cut off <"),
    ],
)
def test_any_other_answer_means_that_the_store_is_not_there_for_now(strange, answer):
    strange.answers = {"PUT": answer, "GET": answer, "POST": answer}
    store = store_at(strange)
    for act in (
        lambda: store_bytes(store, "inputs/a", LARGE),
        lambda: list(store.keys_older_than(0)),
        store.check,
        store.sweep_unfinished,
    ):
        with pytest.raises(BlobStoreUnavailableError):
            act()


def test_an_upload_counts_only_when_the_store_says_that_it_is_complete(strange):
    """S3 answers 200 before it has put the parts together, and may say in the body that it could not."""
    begun = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
    strange.answers = {
        "POST": (200, "application/xml", begun),
        "PUT": (200, "application/xml", b""),
        "DELETE": (204, "application/xml", b""),
    }
    with (
        pytest.raises(BlobStoreUnavailableError),
        store_at(strange).begin("inputs/a", declared_bytes=None) as writer,
    ):
        writer.write(LARGE)
        strange.answers["POST"] = (200, "application/xml", error_of("InternalError"))
        writer.finish()


def test_a_store_that_ignores_ranges_gives_no_wrong_bytes(strange):
    strange.answers = {"GET": (200, "application/zip", LARGE)}
    with store_at(strange).open("outputs/a") as file:
        file.seek(5)
        with pytest.raises(BlobStoreUnavailableError):
            file.read(5)
