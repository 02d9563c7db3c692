"""The shell scripts on a checkout of their own: what they remove, what they refuse, and in which words."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[3] / "setup"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that has nothing but the scripts and an empty list of requirements."""
    top = tmp_path / "checkout"
    (top / "setup").mkdir(parents=True)
    (top / "requirements").mkdir()
    (top / "requirements" / "embedded.txt").write_text("")
    for script in SETUP.glob("*.sh"):
        shutil.copy2(script, top / "setup")
    return top


def run(checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "STATE_DIRECTORY"}}
    return subprocess.run(
        [checkout / "setup" / words[0], *words[1:]],
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_clean_removes_caches_and_never_goes_into_the_state(checkout: Path) -> None:
    # Given caches of Python in the code, in the state, and in a state that lies elsewhere in the checkout
    kept = [".state/contents/7/__pycache__", "my state/consumer/output/__pycache__"]
    for name in ("setup/__pycache__", "a/b/__pycache__", *kept):
        (checkout / name).mkdir(parents=True)
    # When the checkout is cleaned
    done = run(checkout, "clean.sh", STATE_DIRECTORY="my state")
    # Then only the code's caches are gone.
    assert done.returncode == 0, done.stderr
    found = {str(path.relative_to(checkout)) for path in checkout.rglob("__pycache__")}
    assert found == set(kept)


def test_a_python_that_was_named_and_cannot_be_used_is_refused(checkout: Path) -> None:
    done = run(checkout, "venv.sh", "embedded", PYTHON="/nowhere/python3")
    assert done.returncode == 1
    assert "error: PYTHON=/nowhere/python3 is not a Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_dpkg_that_cannot_finish_is_said_and_does_not_end_the_script(
    checkout: Path, tmp_path: Path
) -> None:
    # Given a Debian whose Python lacks venv, whose dpkg is stuck and whose apt-get can install nothing
    programs = tmp_path / "programs"
    python = program(programs, "some-python", 'case "$2" in *ensurepip*) exit 1;; esac')
    program(programs, "id", "echo 0")
    program(programs, "dpkg", "exit 1")
    program(programs, "apt-get", 'case "$1" in install) exit 100;; esac')
    # When the environment is made
    path = f"{programs}:{os.environ['PATH']}"
    done = run(checkout, "venv.sh", "embedded", PYTHON=str(python), PATH=path)
    # Then both are said, in our words.
    assert done.returncode == 1
    assert "dpkg --configure -a failed" in done.stdout
    assert "error: apt-get could not install python3-venv" in done.stderr


MAKES_OWN = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}


@pytest.mark.parametrize("command", ["down", "engine-down"])
def test_stopping_installs_nothing_and_says_so(checkout: Path, command: str) -> None:
    done = run(checkout, "stop.sh", command)
    assert done.returncode == 1
    assert "no usable virtual environment in .venv, so nothing was stopped" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["down", "engine-down"])
def test_make_stops_without_installing(target: str) -> None:
    # The tests may be run by a make themselves, whose variables this one must not take for its own.
    environment = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    planned = subprocess.run(
        ["make", "--dry-run", target],
        cwd=SETUP.parent, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert planned.stdout.split() == ["setup/stop.sh", target]


def test_stopping_uses_the_environment_that_is_there(checkout: Path) -> None:
    # Given an environment whose requirements are not those of this checkout any more
    program(checkout / ".venv", "x", "")
    program(checkout / ".venv" / "bin", "python", 'echo "$@"')
    assert run(checkout, "stop.sh", "down").stdout.splitlines()[-1] == "-m setup down"
