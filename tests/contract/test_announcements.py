"""The message in the broker's queues, held against a file, and everything that is no such message."""

import json
from pathlib import Path

import pytest

from contracts.announcements import (
    DEAD_LETTER_QUEUE,
    Announcement,
    BrokerNode,
    broker_address,
    decode,
    encode,
    queue_arguments,
    queue_name,
)
from contracts.messages import MessageError, SlotKind

GOLDEN = Path(__file__).parent / "golden" / "announcement.json"
ANNOUNCEMENT = Announcement(task_id="2" * 32)
TASK_ID = "a1" * 16


def test_an_announcement_is_written_as_its_golden_file_says():
    assert json.loads(encode(ANNOUNCEMENT)) == json.loads(GOLDEN.read_text())


def test_the_golden_file_is_read_as_the_announcement():
    assert decode(GOLDEN.read_bytes()) == ANNOUNCEMENT


def test_an_unknown_field_of_an_announcement_is_ignored():
    assert decode(json.dumps({"version": 1, "task_id": TASK_ID, "new": []}).encode()).task_id == TASK_ID


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 2000, "not JSON"),
        (b"{}" * 4000, "4096 bytes"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{}", "version"),
        (json.dumps({"version": 2, "task_id": TASK_ID}).encode(), "version must be 1, not '2'"),
        (json.dumps({"version": True, "task_id": TASK_ID}).encode(), "version"),
        (json.dumps({"version": "1", "task_id": TASK_ID}).encode(), "version"),
        (json.dumps({"version": 1}).encode(), "task_id"),
        (json.dumps({"version": 1, "task_id": 5}).encode(), "task_id"),
        (json.dumps({"version": 1, "task_id": "../" + TASK_ID}).encode(), "task_id"),
    ],
)
def test_what_is_no_announcement_is_refused_with_its_fault(body, fault):
    with pytest.raises(MessageError, match=fault):
        decode(body)


def test_each_kind_of_slot_has_a_queue_of_its_own():
    assert [queue_name(kind) for kind in SlotKind] == ["tasks.cpu", "tasks.gpu"]


def test_a_queue_is_replicated_and_leads_to_the_dead_letters():
    arguments = queue_arguments()
    assert arguments["x-queue-type"] == "quorum"
    # The empty exchange leads to the queue that the key names.
    assert (arguments["x-dead-letter-exchange"], arguments["x-dead-letter-routing-key"]) == (
        "",
        DEAD_LETTER_QUEUE,
    )


def test_an_address_is_read_in_full():
    address = broker_address("amqps://some%40one:se%2Fcret@broker.example.org/a%2Fb")
    assert (address.nodes, address.tls) == ((BrokerNode("broker.example.org", 5671),), True)
    assert (address.user, address.password, address.virtual_host) == ("some@one", "se/cret", "a/b")


def test_a_password_of_its_own_takes_the_place_of_the_one_in_the_address():
    address = broker_address("amqp://me:old@host:1/%2F", "new")
    assert (address.password, address.virtual_host, address.nodes[0].port) == ("new", "/", 1)


def test_an_address_may_name_several_hosts():
    address = broker_address("amqp://worker:a,b@rabbit1:5673,rabbit2,[::1]:1/%2F")
    assert [(node.host, node.port) for node in address.nodes] == [
        ("rabbit1", 5673), ("rabbit2", 5672), ("::1", 1),
    ]  # fmt: skip
    assert (address.user, address.password, address.virtual_host) == ("worker", "a,b", "/")
    assert address.is_cluster
    assert not broker_address("amqp://worker@rabbit1").is_cluster


def test_a_broker_has_one_name_however_many_hosts():
    address = broker_address("amqp://me@a:1,b:2/%2F")
    assert str(address) == "amqp://me@a:1,b:2 (virtual host '/')"


def test_a_password_is_never_shown():
    address = broker_address("amqp://me:secret@host", "secret")
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "url",
    [
        "broker:5672",
        "http://me@host",
        "amqp://host",
        "amqp://me@",
        "amqp://me:secret@host:port/",
        "amqp://me@h/a/b",
        "amqp://me:secret@a:5672,",
        "amqp://me:secret@,a:5672",
        "amqp://me:secret@a,,b",
        "amqp://me:secret@a, b",
        "amqp://me:secret@a:5672,b:0x10",
        "amqp://me:secret@a:5672,b:70000/%2F",
        "amqp://me:secret@a:5672,a/%2F",
        "amqp://a,b:5672/%2F",
        "amqp://me:secret@[a:5672,b/%2F",
    ],
)
def test_a_wrong_address_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="amqp://user@host") as caught:
        broker_address(url)
    assert "secret" not in str(caught.value)
