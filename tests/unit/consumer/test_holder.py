"""The slot's holder, with an engine in memory."""

from __future__ import annotations

import pytest

from consumer.node.holder import Holder
from consumer.outside.errors import EngineError
from consumer.outside.labels import Owner
from tests.unit.consumer.fake_engine import FakeEngine

OWNER = Owner(installation="inst", node="node", slot="cpu-0")


def test_it_is_made_once_and_used_again() -> None:
    engine = FakeEngine(program=lambda container: int(container.killed.wait()))
    holder = Holder(engine, OWNER)
    assert holder.ensure_running() == holder.ensure_running()
    holder.remove()
    assert engine.containers == {}


def test_a_strangers_container_of_the_same_name_is_neither_joined_nor_removed() -> None:
    # Given a container with the holder's name and none of its labels
    engine = FakeEngine(program=lambda container: int(container.killed.wait()))
    Holder(engine, Owner(installation="other", node="node", slot="cpu-0")).ensure_running()
    [stranger] = engine.containers.values()
    stranger.name = OWNER.holder_name
    # When the slot wants its holder
    with pytest.raises(EngineError, match="not ours"):
        Holder(engine, OWNER).ensure_running()
    # Then it is left alone
    assert list(engine.containers.values()) == [stranger]
