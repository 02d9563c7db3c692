"""The whole server on RabbitMQ: real processes, a real broker, the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.brokers import TestBroker
from tests.rig.fixtures import admin, model, pytest_runtest_makereport, running_server, user
from tests.rig.parts import Part
from tests.rig.server import Server

__all__ = ["admin", "model", "pytest_runtest_makereport", "user"]

SLOTS = 2


@pytest.fixture(scope="session")
def broker(rabbitmq: Part) -> TestBroker:
    """A virtual host for the server of this folder."""
    return TestBroker(rabbitmq)


@pytest.fixture(scope="session")
def server(broker: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose consumer may only read from the broker.

    Its slots wait for longer than any test does: what comes sooner came over the broker.
    """
    settings = {"BROKER_URL": broker.url, "DRAIN_SECONDS": "1", "CLAIM_WAIT_SECONDS": "60"}
    consumer = {"BROKER_URL": broker.worker_url}
    directory = tmp_path_factory.mktemp("broker")
    with running_server(directory, slots=SLOTS, consumer=consumer, **settings) as server:
        yield server
