"""A broker with several hosts in its address: whoever connects goes around them, and says so once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.outside.listener import Listener
from contracts.announcements import BrokerAddress, broker_address
from private_api.announcing.dead_letters import DeadLetterBox
from tests.integration.broker.announcing_api import private_api, wait_for_broker
from tests.integration.private_api.callers import Api
from tests.rig.brokers import TestBroker
from tests.rig.polling import eventually
from tests.rig.ports import free_ports


def with_hosts(url: str, *others: str) -> str:
    """The address with hosts before its own."""
    user, _, rest = url.partition("@")
    return f"{user}@{','.join(others)},{rest}"


@pytest.fixture
def closed() -> list[str]:
    """Two hosts where nobody listens."""
    return [f"127.0.0.1:{port}" for port in free_ports(2)]


@pytest.fixture
def silent() -> Iterator[str]:
    """A host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def messages(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if getattr(record, "action", None) == action
    ]  # fmt: skip


def submit(api: Api, count: int) -> None:
    assert {api.submit("echo").status_code for _ in range(count)} == {202}


def test_hosts_that_are_away_are_passed_over(
    tmp_path: Path, broker: TestBroker, closed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with private_api(tmp_path, with_hosts(broker.url, *closed)) as api:
        wait_for_broker(api)
        api.register("echo")
        submit(api, 1)
        broker.wait_ready("tasks.cpu", 1)
    # The broker has one name, and was never away
    [ready] = messages(caplog, "broker_ready")
    assert f"{closed[0]},{closed[1]},127.0.0.1:{broker.part.port}" in ready
    assert ready.endswith(f"by way of 127.0.0.1:{broker.part.port}")
    assert messages(caplog, "broker_away") == []
    assert "server" not in " ".join(messages(caplog, "broker_node_away"))


def test_a_slot_passes_over_hosts_that_are_away(
    tmp_path: Path, broker: TestBroker, closed: list[str]
) -> None:
    with private_api(tmp_path, broker.url) as api:
        wait_for_broker(api)
    listener = Listener(broker_address(with_hosts(broker.worker_url, *closed)), "tasks.cpu", "a slot")
    listener.start()
    try:
        eventually(lambda: listener.is_reachable, 5, "the slot hears")
    finally:
        listener.close()


def test_a_silent_host_does_not_hold_up_the_others(
    tmp_path: Path, broker: TestBroker, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("private_api.announcing.connection._CLUSTER_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr("consumer.outside.broker._CLUSTER_PATIENCE_SECONDS", 0.5)
    with private_api(tmp_path, with_hosts(broker.url, silent)) as api:
        eventually(lambda: api.services.announcer.state() == "ok", 5, "the private API announces")
    listener = Listener(broker_address(with_hosts(broker.worker_url, silent)), "tasks.cpu", "a slot")
    listener.start()
    try:
        eventually(lambda: listener.is_reachable, 5, "the slot hears")
    finally:
        listener.close()


def test_when_all_are_away_it_is_said_once_with_one_name(
    tmp_path: Path, closed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = f"amqp://server:secret@{','.join(closed)}/%2F"
    with private_api(tmp_path, url) as api:
        eventually(lambda: messages(caplog, "broker_away"), 10, "it is said")
        assert api.services.announcer.state() == "away"
    [away] = messages(caplog, "broker_away")
    assert away.startswith(f"the broker at amqp://server@{','.join(closed)} (virtual host '/') is away: ")
    assert away.count("Connection refused") == 1
    assert "secret" not in caplog.text


def test_what_one_connection_refuses_is_offered_on_another(
    tmp_path: Path, broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    policy = ["rabbitmqctl", "-q", "-p", broker.name]
    # Given one broker under two names, whose queues take a single message
    url = with_hosts(broker.url, f"localhost:{broker.part.port}")
    with private_api(tmp_path, url) as api:
        wait_for_broker(api)
        api.register("echo")
        full = '{"max-length":1,"overflow":"reject-publish"}'
        broker.part.exec([*policy, "set_policy", "full", "^tasks[.]cpu$", full, "--apply-to", "queues"])
        # When more are announced
        submit(api, 8)
        # Then the private API turns to the other name
        eventually(lambda: len(messages(caplog, "broker_ready")) > 1, 15, "another connection")
        assert "it refuses to store" in messages(caplog, "broker_node_away")[0]
        first, second = messages(caplog, "broker_ready")[:2]
        assert first != second
        # And nothing that was refused is lost
        broker.part.exec([*policy, "clear_policy", "full"])
        broker.wait_ready("tasks.cpu", 8)


def test_an_operator_sees_dead_letters_on_whichever_host_answers(
    tmp_path: Path, broker: TestBroker, closed: list[str]
) -> None:
    with private_api(tmp_path, broker.url) as api:
        wait_for_broker(api)
    address: BrokerAddress = broker_address(with_hosts(broker.url, *closed))
    assert [DeadLetterBox(address).count() for _ in range(3)] == [0, 0, 0]
