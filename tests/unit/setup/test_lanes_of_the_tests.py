"""Every test belongs to one of the lanes that run side by side, but for those of the Swarm."""

from __future__ import annotations

from pathlib import Path

from setup.test_run import FOLDERS, SWARM_FOLDER, lanes

_TESTS = Path(__file__).resolve().parents[2]


def test_every_folder_with_tests_is_in_one_lane() -> None:
    # When
    found = lanes(_TESTS)
    # Then
    files = [file for file in _TESTS.rglob("test_*.py") if file.parent.name != SWARM_FOLDER]
    assert files
    for file in files:
        place = f"tests/{file.relative_to(_TESTS).parts[0]}"
        assert [place in lane.tests for lane in found].count(True) == 1, place
    assert not any(f"tests/{SWARM_FOLDER}" in lane.tests for lane in found)
    # And no lane names what is not there
    assert all((_TESTS / name).is_dir() for folders in FOLDERS.values() for name in folders)
