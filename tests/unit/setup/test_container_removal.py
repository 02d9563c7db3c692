"""A container that somebody else is removing is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from setup.engine import leftovers

BUSY = APIError("removal is already in progress", SimpleNamespace(status_code=409, reason="", url=""))
BROKEN = APIError("driver failed", SimpleNamespace(status_code=500, reason="", url=""))


class Removed:
    """A container whose removal goes as told, time after time."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.left = list(outcomes)

    def remove(self, **_how: Any) -> None:
        outcome = self.left.pop(0)
        if outcome is not None:
            raise outcome


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers.time, "sleep", lambda _seconds: None)


@pytest.mark.parametrize(
    "outcomes", [(None,), (NotFound("gone"),), (BUSY, BUSY, NotFound("gone")), (BUSY, None)]
)
def test_it_is_gone_in_the_end(outcomes: tuple[Exception | None, ...]) -> None:
    container: Any = Removed(*outcomes)
    leftovers.remove_container(container)
    assert container.left == []


def test_any_other_refusal_is_told() -> None:
    container: Any = Removed(BROKEN)
    with pytest.raises(APIError) as refused:
        leftovers.remove_container(container)
    assert refused.value is BROKEN


def test_nobody_is_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_GONE_SECONDS", -1.0)
    container: Any = Removed(BUSY, None)
    with pytest.raises(APIError) as refused:
        leftovers.remove_container(container)
    assert refused.value is BUSY
