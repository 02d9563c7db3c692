"""Each service's side of the broker, against a real one: a virtual host for every test."""

from __future__ import annotations

import pytest

from tests.rig.brokers import TestBroker
from tests.rig.parts import Part


@pytest.fixture
def broker(rabbitmq: Part) -> TestBroker:
    return TestBroker(rabbitmq)
