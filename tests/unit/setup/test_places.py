"""Which directory may hold an installation's state, and where its socket may lie."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from setup.console import SetupError
from setup.places import LONGEST_SOCKET_PATH, Places


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_with_others_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    # Given a STATE_DIRECTORY that somebody uses for other things
    state = tmp_path / "busy"
    state.mkdir(mode=0o755)
    (state / "letter.txt").write_text("mine")
    # When it is to be made ours, then that is refused, and neither its mode nor its content changed.
    with pytest.raises(SetupError, match="not an installation's"):
        Places(tmp_path, state).make()
    assert mode(state) == 0o755
    assert [path.name for path in state.iterdir()] == ["letter.txt"]


def test_a_directory_into_which_others_write_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    state = tmp_path / "shared"
    state.mkdir()
    state.chmod(0o1777)
    with pytest.raises(SetupError, match="chmod 700"):
        Places(tmp_path, state).make()
    assert stat.S_IMODE(state.stat().st_mode) == 0o1777


def test_an_empty_directory_and_one_of_ours_are_taken(tmp_path: Path) -> None:
    state = tmp_path / "empty"
    state.mkdir(mode=0o755)
    places = Places(tmp_path, state)
    places.make()
    first = places.installation()
    places.make()
    assert places.installation() == first
    assert mode(state) == 0o755
    assert {mode(path) for path in (places.run, places.logs, places.consumer)} == {0o700}


def test_the_checkouts_own_state_is_ours_by_its_name(tmp_path: Path) -> None:
    # Given a .state/ that was cut off before its id was written
    places = Places(tmp_path, tmp_path / ".state")
    places.state.mkdir(mode=0o700)
    places.logs.mkdir()
    places.make()
    assert places.installation()


def test_an_id_that_a_full_disk_cut_off_is_made_anew(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path)
    places.installation_file.write_text("")
    assert places.installation()


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for state in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SetupError, match="STATE_DIRECTORY="):
            Places(tmp_path, state).make()


@pytest.fixture
def long_places(tmp_path: Path) -> Places:
    places = Places(tmp_path, tmp_path / ("x" * LONGEST_SOCKET_PATH))
    places.make()
    return places


def test_a_link_that_somebody_planted_is_not_followed(long_places: Places, tmp_path: Path) -> None:
    # Given a link where the short socket directory would be, to a directory that is ours
    inside = tmp_path / "inside"
    inside.mkdir(mode=0o700)
    planted = Path(f"/tmp/inferenceserver-{os.getuid()}-{long_places.installation()}")
    planted.symlink_to(inside)
    try:
        with pytest.raises(SetupError, match="only this user may enter"):
            long_places.supervisor_socket()
    finally:
        planted.unlink()


def test_a_socket_directory_that_others_may_enter_is_refused(long_places: Places) -> None:
    place = long_places.supervisor_socket().parent
    try:
        place.chmod(0o711)
        with pytest.raises(SetupError, match="only this user may enter"):
            long_places.supervisor_socket()
    finally:
        place.rmdir()
