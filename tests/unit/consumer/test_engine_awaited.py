"""A node whose engine is not there yet."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from consumer import bootstrap
from consumer.bootstrap import reach_engine
from consumer.node.settings import Settings
from consumer.outside.errors import EngineAwayError

SETTINGS = replace(Settings.from_environment({}), docker_host="unix:///nowhere/engine.sock")


def test_it_says_for_what_it_waits_and_gives_up_after_a_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given an operator who allows little time
    monkeypatch.setattr(bootstrap, "_LOOK_SECONDS", 0.01)

    def away(_host: str, _credentials: object) -> None:
        raise EngineAwayError("nobody answers")

    monkeypatch.setattr(bootstrap, "DockerEngine", away)
    # When there is no engine
    with pytest.raises(EngineAwayError, match=r"No container engine answered within .*DOCKER_HOST"):
        reach_engine(replace(SETTINGS, start_patience_seconds=0.2))
    # Then that was said when it began, and not at each look
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1


def test_an_engine_that_comes_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "_LOOK_SECONDS", 0.01)
    answers = iter([EngineAwayError("away"), EngineAwayError("away"), None])
    found = object()

    def engine(_host: str, _credentials: object) -> object:
        error = next(answers)
        if error is not None:
            raise error
        return found

    monkeypatch.setattr(bootstrap, "DockerEngine", engine)
    assert reach_engine(SETTINGS) is found
