"""Every test belongs to one of the lanes that run side by side."""

from __future__ import annotations

from pathlib import Path

from setup.checks.test_run import FOLDERS, SWARM_FOLDER, lanes

_TESTS = Path(__file__).resolve().parents[2]


def test_every_folder_with_tests_is_in_one_lane() -> None:
    # When
    found = lanes(_TESTS, with_swarm=True)
    # Then
    files = list(_TESTS.rglob("test_*.py"))
    assert files
    for file in files:
        place = f"tests/{file.relative_to(_TESTS).parts[0]}"
        assert [place in lane.tests for lane in found].count(True) == 1, place
    # And no lane names what is not there
    assert all((_TESTS / name).is_dir() for folders in FOLDERS.values() for name in folders)


def test_where_no_machines_can_be_made_all_others_stay() -> None:
    all_of_them, without = (
        {place for lane in lanes(_TESTS, with_swarm=with_swarm) for place in lane.tests}
        for with_swarm in (True, False)
    )
    assert all_of_them - without == {f"tests/{SWARM_FOLDER}"}
