"""The 1.x interface's words for native things."""

from __future__ import annotations

import pytest

from public_api.facades.classic_shapes import (
    content_is_announced,
    native_registration,
    read_switch,
    status_of_problem,
)
from serving.problems import ProblemError


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", True), ("1", True), ("on", True), ("False", False), ("", False), ("No", False)],
)
def test_switches_are_read_as_people_write_them(text: str, value: bool) -> None:
    assert read_switch("use_gpu", text) is value


def test_a_switch_that_is_neither_names_its_field() -> None:
    with pytest.raises(ProblemError, match="use_gpu"):
        native_registration({"use_gpu": "maybe"})


def test_empty_and_unknown_fields_are_left_out_of_a_registration() -> None:
    assert native_registration({"human_readable_id": "m", "description": "", "other": "x"}) == {
        "human_readable_id": "m", "classic_id": True, "profile": "compatible",
    }  # fmt: skip


def test_a_model_may_not_be_enabled_or_relaxed_through_the_facade() -> None:
    fields = {"human_readable_id": "m", "network": "true", "memory_bytes": "1", "profile": "strict"}
    assert set(native_registration(fields)) == {"human_readable_id", "classic_id", "profile"}


def test_content_is_announced_by_model_available() -> None:
    assert content_is_announced({"model_available": "True"})
    assert not content_is_announced({})


def test_none_is_a_switch_left_out() -> None:
    fields = {"human_readable_id": "m", "use_gpu": "None", "model_available": "none"}
    assert "use_gpu" not in native_registration(fields)
    assert not content_is_announced(fields)


@pytest.mark.parametrize("code", ["unauthenticated", "never_heard_of", None, 5])
def test_other_problems_keep_their_status(code: object) -> None:
    assert status_of_problem({"code": code}) is None
