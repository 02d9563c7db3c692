"""Every test belongs to one of the halves that run side by side, but for those of the Swarm."""

from __future__ import annotations

from pathlib import Path

from setup.test_run import STACK_FOLDERS, SWARM_FOLDER, halves

_TESTS = Path(__file__).resolve().parents[2]


def test_every_folder_with_tests_is_in_one_half() -> None:
    # When
    with_stack, others = halves(_TESTS)
    # Then
    files = [file for file in _TESTS.rglob("test_*.py") if file.parent.name != SWARM_FOLDER]
    assert files
    for file in files:
        place = f"tests/{file.relative_to(_TESTS).parts[0]}"
        assert (place in with_stack) != (place in others)
    assert f"tests/{SWARM_FOLDER}" not in with_stack + others
    assert with_stack == [f"tests/{name}" for name in STACK_FOLDERS]
