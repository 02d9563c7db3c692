"""Downloads around the server: the store reached at an address of its own, by the real client."""

import random
import re
import secrets

import pytest
import requests
from inference_server_client import Client
from inference_server_client.errors import InferenceServerError

from tests.integration.private_api.buckets import s3_store, store_bytes
from tests.integration.private_api.private_api_process import PrivateApiProcess, s3_environment
from tests.rig.wires import Wire

OUTPUT = random.Random(5).randbytes(9_000_000)


@pytest.fixture(scope="module")
def wire(s3):
    """The way by which people reach the store: another port than the server's own."""
    with Wire(s3.host, s3.port) as wire:
        yield wire


@pytest.fixture(scope="module")
def bucket():
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def server(tmp_path_factory, s3, wire, bucket):
    environment = s3_environment(s3, bucket, BLOB_PUBLIC_URL=wire.url)
    with PrivateApiProcess(tmp_path_factory.mktemp("direct"), **environment) as server:
        server.start()
        server.register()
        yield server


@pytest.fixture(scope="module")
def task_id(server):
    return server.finished_task(OUTPUT)


@pytest.fixture(autouse=True)
def untouched(wire):
    wire.sent, wire.connections, wire.cut_after_bytes = b"", 0, None


@pytest.fixture
def client(server):
    with Client(server.url, server.key("admin")) as client:
        yield client


def test_nobody_is_sent_elsewhere_who_did_not_ask(server, task_id, wire):
    for answer in (
        server.call("GET", f"/v1/tasks/{task_id}/output"),
        server.call("GET", f"/v1/tasks/{task_id}/output?redirect=0"),
    ):
        assert (answer.status_code, answer.content) == (200, OUTPUT)
    assert server.call("HEAD", f"/v1/tasks/{task_id}/output?redirect=1").status_code == 200
    assert wire.connections == 0


def test_who_asks_is_sent_to_the_store_with_the_right_to_this_blob_alone(server, task_id, wire):
    answer = server.call("GET", f"/v1/tasks/{task_id}/output?redirect=1")
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    url = answer.headers["Location"]
    assert url.startswith(wire.url)
    stored = requests.get(url, timeout=30)
    assert stored.content == OUTPUT
    assert stored.headers["Content-Disposition"] == f'attachment; filename="{task_id}-output.zip"'
    assert requests.get(url, headers={"Range": "bytes=5-9"}, timeout=30).content == OUTPUT[5:10]
    assert requests.get(url.replace("outputs/", "inputs/"), timeout=30).status_code == 403
    assert requests.delete(url, timeout=30).status_code == 403


def test_the_input_can_be_fetched_around_the_server_too(server, task_id, wire):
    answer = server.call("GET", f"/v1/tasks/{task_id}/input?redirect=1", allow_redirects=True)
    assert (answer.status_code, wire.connections) == (200, 1)
    assert answer.content == server.call("GET", f"/v1/tasks/{task_id}/input").content


def test_another_word_than_0_or_1_is_refused(server, task_id):
    answer = server.call("GET", f"/v1/tasks/{task_id}/output?redirect=yes")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_the_client_takes_the_direct_way_and_keeps_its_key_to_itself(client, task_id, wire, tmp_path):
    file = client.tasks.download_output(client.tasks.get(task_id), tmp_path / "output.zip")
    assert file.read_bytes() == OUTPUT
    assert wire.connections == 1
    assert b"authorization" not in wire.sent.lower()


@pytest.mark.parametrize("cut_after_bytes", [0, 1_000_000])
def test_where_the_direct_way_breaks_the_client_goes_on_with_the_server(
    client, task_id, wire, tmp_path, cut_after_bytes
):
    wire.cut_after_bytes = cut_after_bytes
    file = client.tasks.download_output(client.tasks.get(task_id), tmp_path / "output.zip")
    assert file.read_bytes() == OUTPUT
    assert wire.connections == 1


def test_a_damaged_blob_is_refused_on_either_way(server, client, s3, bucket, tmp_path):
    task_id = server.finished_task(OUTPUT)
    store = s3_store(s3, s3_bucket=bucket)
    key = next(key for key in store.keys_older_than(-60) if task_id in key)
    store_bytes(store, key, OUTPUT[:-1] + b"x")
    with pytest.raises(InferenceServerError):
        client.tasks.download_output(client.tasks.get(task_id), tmp_path / "output.zip")
    assert list(tmp_path.glob("output.zip")) == []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        server.call("GET", f"/v1/tasks/{task_id}/output")


def test_the_log_holds_no_signature(server, task_id):
    server.call("GET", f"/v1/tasks/{task_id}/output?redirect=1")
    assert not re.search("X-Amz|Signature=", server.log)
