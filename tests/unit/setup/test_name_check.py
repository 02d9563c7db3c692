"""The health check of a Swarm's services that others look for by name, with a resolver of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.rig.polling import eventually

SCRIPT = Path(__file__).resolve().parents[3] / "stack/named.sh"


class Container:
    """Where the check runs: what `getent` finds there is what the test says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = folder / "names"
        self.asked = folder / "asked"
        resolver = folder / "getent"
        resolver.write_text(f'#!/bin/sh\necho "$*" >>{self.asked}\ngrep -qx "$2" {self.names}\n')
        resolver.chmod(0o755)

    def check(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Ask how the service `s3` is."""
        path = f"{self._folder}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", SCRIPT, "s3", *command], env={"PATH": path, "TMPDIR": str(self._folder)},
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip

    @property
    def knows_its_name(self) -> bool:
        return (self._folder / ".found-by-name").exists()


@pytest.fixture
def container(tmp_path: Path) -> Container:
    container = Container(tmp_path)
    container.names.write_text("")
    return container


def test_a_name_that_is_not_told_yet_is_not_waited_for(container: Container) -> None:
    # The Swarm tells it once this has passed.
    assert container.check("true").returncode == 0
    eventually(container.asked.exists, 5, "it was looked for")
    assert container.check("true").returncode == 0
    assert not container.knows_its_name


def test_a_name_that_was_known_must_go_on_leading_here(container: Container) -> None:
    # Given a name that was found once
    container.names.write_text("s3\n")
    assert container.check("true").returncode == 0
    eventually(lambda: container.knows_its_name, 5, "the name was found")
    assert container.check("true").returncode == 0
    # When it is lost
    container.names.write_text("postgres\n")
    # Then the check fails and says why, until it is there again
    lost = container.check("true")
    assert lost.returncode == 1
    assert "the name s3, which was known, leads nowhere" in lost.stdout
    container.names.write_text("s3\n")
    assert container.check("true").returncode == 0


def test_a_service_that_is_not_well_is_not_helped_by_its_name(container: Container) -> None:
    container.names.write_text("s3\n")
    assert container.check("sh", "-c", "exit 3").returncode == 1
    assert not container.asked.exists()


def test_the_checks_arguments_are_handed_on_as_they_are(container: Container) -> None:
    done = container.check("sh", "-c", 'echo "$0|$1|$#"', "two words", 'a "quote"')
    assert done.stdout == 'two words|a "quote"|1\n'
