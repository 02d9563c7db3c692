"""Every test belongs to one of the halves that run side by side."""

from __future__ import annotations

from pathlib import Path

from setup.test_run import STACK_FOLDERS, halves

_TESTS = Path(__file__).resolve().parents[2]


def test_every_folder_with_tests_is_in_one_half() -> None:
    # When
    with_stack, others = halves(_TESTS)
    # Then
    files = list(_TESTS.rglob("test_*.py"))
    assert files
    for file in files:
        place = f"tests/{file.relative_to(_TESTS).parts[0]}"
        assert (place in with_stack) != (place in others)
    assert with_stack == [f"tests/{name}" for name in STACK_FOLDERS]
