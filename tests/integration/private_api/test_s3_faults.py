"""What happens when the S3 store is killed, frozen, absent or not ours: said clearly, and mended alone."""

import random
import re
import secrets
import threading
import time
from pathlib import Path

import pytest
import requests

from private_api.blobs.choice import open_blob_store, prepare_blob_store
from private_api.blobs.s3_upload import part_bytes_for
from private_api.blobs.store import BlobStoreUnavailableError
from private_api.bootstrap import bootstrap
from private_api.settings import Settings
from tests.integration.private_api.buckets import s3_settings, s3_store, store_bytes
from tests.integration.private_api.callers import Api, problem
from tests.integration.private_api.private_api_process import PrivateApiProcess, s3_environment
from tests.rig.parts import start_s3
from tests.rig.polling import eventually
from tests.rig.wires import Wire

MEBIBYTE = 1024 * 1024
LARGE = random.Random(9).randbytes(30 * MEBIBYTE)


@pytest.fixture(scope="module")
def own_s3():
    """A store that these tests may break; each of them leaves it running."""
    part = start_s3()
    yield part
    part.remove()


@pytest.fixture
def part(own_s3):
    yield own_s3
    own_s3.start()
    own_s3.wait_ready()


@pytest.fixture
def environment(part):
    return s3_environment(part, f"test-{secrets.token_hex(8)}")


@pytest.fixture
def server(tmp_path, environment):
    with PrivateApiProcess(tmp_path, **environment) as server:
        server.start()
        server.register()
        yield server


def is_away(answer):
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert answer.json()["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0
    return True


def tasks_of(server):
    return server.call("GET", "/v1/tasks").json()["items"]


# Killed, and back.


def test_while_the_store_is_away_nothing_is_accepted_and_after_it_everything_is(server, part):
    # Given a task with an output, and a store that is killed
    kept = server.finished_task(LARGE)
    part.kill()
    # Then uploads and downloads are put off, and no task exists without its input
    started = time.monotonic()
    is_away(server.submit(b"x"))
    is_away(server.submit(LARGE))
    is_away(server.call("GET", f"/v1/tasks/{kept}/output"))
    assert time.monotonic() - started < 30
    assert [task["id"] for task in tasks_of(server)] == [kept]
    ready = server.call("GET", "/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["blobs"].startswith("unavailable")
    # When it is back, the same process goes on with it
    part.start()
    part.wait_ready()
    server.await_ready()
    assert server.call("GET", f"/v1/tasks/{kept}/output").content == LARGE
    server.finished_task(LARGE)


def test_a_task_can_be_removed_while_the_store_is_away(server, part):
    task_id = server.finished_task(b"output")
    part.kill()
    assert server.call("DELETE", f"/v1/tasks/{task_id}").status_code == 204
    assert tasks_of(server) == []


def test_a_store_killed_during_an_upload_leaves_no_task_and_its_parts_are_cleared_away(part, monkeypatch):
    store = s3_store(part)
    with pytest.raises(BlobStoreUnavailableError), store.begin("inputs/a", declared_bytes=None) as writer:
        writer.write(LARGE)
        part.kill()
        writer.write(LARGE)
        writer.finish()
    part.start()
    part.wait_ready()
    assert [key for key, _, _ in store._bucket.uploads()] == ["inputs/a"]
    store.sweep_unfinished()
    assert list(store._bucket.uploads()) == []
    assert list(store.keys_older_than(-60)) == []


def test_a_download_that_the_store_cannot_end_is_broken_off_and_never_ends_cleanly(server, part):
    task_id = server.finished_task(LARGE * 3)
    with server.call("GET", f"/v1/tasks/{task_id}/output", stream=True) as answer:
        assert answer.headers["Content-Length"] == str(len(LARGE) * 3)
        answer.raw.read(MEBIBYTE)
        part.kill()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            sum(len(data) for data in answer.iter_content(MEBIBYTE))


def test_a_reader_does_not_notice_a_connection_that_breaks(part):
    store = s3_store(part)
    store_bytes(store, "outputs/a", LARGE)
    with Wire(part.host, part.port) as wire:
        away = open_blob_store(Settings(**s3_settings(part, s3_endpoint=wire.url)))
        away._bucket._bucket = store._bucket._bucket
        wire.cut_after_bytes = 12 * MEBIBYTE
        with away.open("outputs/a") as file:
            assert file.read() == LARGE
        assert wire.connections == 3


# Frozen.


def test_a_frozen_store_is_noticed_within_its_limit(part, monkeypatch):
    # Given something that a store with all patience has kept, and one in the same bucket with little
    patient = s3_store(part)
    store_bytes(patient, "inputs/kept", LARGE)
    monkeypatch.setattr("private_api.blobs.s3.STALL_SECONDS", 2.0)
    store = open_blob_store(Settings(**s3_settings(part, s3_bucket=patient._bucket._bucket)))
    with store.open("inputs/kept") as file:
        file.read(MEBIBYTE)
        part.pause()
        try:
            for act in (
                lambda: store_bytes(store, "inputs/small", b"x"),
                lambda: store_bytes(store, "inputs/large", LARGE),
                file.read,
                lambda: store.open("inputs/kept"),
            ):
                started = time.monotonic()
                with pytest.raises(BlobStoreUnavailableError):
                    act()
                assert time.monotonic() - started < 20
            started = time.monotonic()
            with pytest.raises(BlobStoreUnavailableError):
                store.check()
            assert time.monotonic() - started < 20
        finally:
            part.unpause()
    assert store_bytes(patient, "inputs/small", b"x").size_bytes == 1


def test_an_upload_into_a_frozen_store_is_answered_within_its_limit(part, tmp_path, monkeypatch):
    settings = Settings(
        database_url=f"sqlite:///{tmp_path}/db.sqlite", key_directory=tmp_path, **s3_settings(part)
    )
    prepare_blob_store(settings)
    monkeypatch.setattr("private_api.blobs.s3.STALL_SECONDS", 2.0)
    app = bootstrap(settings, stopping=threading.Event(), upkeep=False)
    services = app.extensions["inferenceserver"]
    keys = [(tmp_path / f"{role}.key").read_text().strip() for role in ("admin", "worker")]
    api = Api(app, services, tmp_path, *keys)
    api.register()
    part.pause()
    try:
        started = time.monotonic()
        document = problem(api.submit(body=LARGE), "unavailable", 503)
        assert document["retryable"] is True
        assert time.monotonic() - started < 30
        assert api.call("GET", "/v1/tasks").json["items"] == []
    finally:
        part.unpause()
    eventually(lambda: api.submit().status_code == 202, 20, "uploads are taken again")
    services.database.engine.dispose()


def test_bytes_damaged_on_their_way_are_refused(part):
    store = s3_store(part)
    with Wire(part.host, part.port) as wire:
        settings = Settings(**s3_settings(part, s3_endpoint=wire.url, s3_bucket=store._bucket._bucket))
        damaged = open_blob_store(settings)
        damaged.prepare()
        wire.damage = (b"precious", b"damaged!")
        for size in (100, 9 * MEBIBYTE):
            with pytest.raises(BlobStoreUnavailableError):
                store_bytes(damaged, "inputs/a", b"precious" * (size // 8))
    assert list(store.keys_older_than(-60)) == []


# At the start.


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"S3_SECRET_KEY": "wrong"}, "S3_ACCESS_KEY and S3_SECRET_KEY must be wrong"),
        ({"S3_ACCESS_KEY": "nobody:there"}, "S3_ACCESS_KEY and S3_SECRET_KEY must be wrong"),
        ({"S3_REGION": "eu-west-1"}, "S3_REGION must be wrong"),
        ({"S3_SECRET_KEY": ""}, "S3_SECRET_KEY (or S3_SECRET_KEY_FILE) must be set"),
        ({"S3_BUCKET": "No_Such/Name"}, "S3_BUCKET must be a name"),
        ({"S3_ENDPOINT": "store:8333"}, "S3_ENDPOINT must be http://HOST"),
        ({"BLOB_PUBLIC_URL": "https://store/a/path"}, "BLOB_PUBLIC_URL must be http://HOST"),
    ],
)
def test_a_setting_that_no_waiting_mends_ends_the_start_with_one_line(tmp_path, environment, change, named):
    with PrivateApiProcess(tmp_path, **{**environment, **change}) as server:
        server.service.start()
        assert server.await_end() != 0
        (line,) = [line for line in server.log.splitlines() if line.startswith("private_api:")]
        assert named in line
        assert "Traceback" not in server.log
        assert environment["S3_SECRET_KEY"] not in server.log


def test_a_store_that_is_absent_is_waited_for_and_then_given_up(tmp_path, environment):
    environment |= {"S3_ENDPOINT": "http://127.0.0.1:9", "START_PATIENCE_SECONDS": "2"}
    with PrivateApiProcess(tmp_path, **environment) as server:
        server.service.start()
        assert server.await_end() != 0
        assert "waiting for the blob store (http://127.0.0.1:9, S3_ENDPOINT)" in server.log
        assert re.search("^private_api: the blob store .* was not there within 2 s", server.log, re.M)
        assert "Traceback" not in server.log


def test_a_store_that_comes_late_is_found(tmp_path, environment, part):
    part.stop()
    with PrivateApiProcess(tmp_path, **environment) as server:
        server.service.start()
        eventually(lambda: "waiting for the blob store" in server.log, 20, "it says for what it waits")
        part.start()
        server.await_ready(60)
        server.register()
        server.finished_task(b"output")


# Many at once.


def test_what_uploads_hold_in_memory_is_bounded_by_their_number(part):
    """Eight uploads at once hold one part each, and a few that are on their way: never their whole bodies."""
    store = s3_store(part)
    body = LARGE * 2
    most = 0
    ended = threading.Event()

    def watch():
        nonlocal most
        while not ended.wait(0.01):
            most = max(most, resident_bytes())

    before = resident_bytes()
    watcher = threading.Thread(target=watch)
    watcher.start()
    uploads = [
        threading.Thread(target=store_bytes, args=(store, f"inputs/{number}", body)) for number in range(8)
    ]
    for upload in uploads:
        upload.start()
    for upload in uploads:
        upload.join(60)
    ended.set()
    watcher.join()
    assert len(list(store.keys_older_than(-60))) == 8
    # The parts of eight uploads and of four senders, the pieces that are written, and threads.
    assert most - before <= (8 + 4) * part_bytes_for(0) + 32 * MEBIBYTE


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
