"""Docker Compose: the command that is here (`docker compose`, or docker-compose 1.29), run for one stack.

Compose prints for people at a terminal; what it says goes to a log file, and its last lines into our errors.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from setup.console import SetupError
from setup.host.machine import CLEAN_UP_SECONDS, Machine, apt_install

# The first that knows profiles, and files without a version.
MINIMUM = (1, 28)
CANDIDATES = (["docker", "compose"], ["docker-compose"])
# Debian's docker-compose is 1.29 or 2, by its release; Ubuntu's 1.29 does not run on its newer Pythons.
PACKAGES = {"debian": "docker-compose", "ubuntu": "docker-compose-v2"}


def find(machine: Machine) -> list[str]:
    """The words that begin a compose command; installs one where there is none and this machine allows it."""
    found = _find()
    package = PACKAGES.get(machine.distribution)
    if found is None and machine.can_install and package:
        apt_install([package], "it starts the services of the full stack")
        found = _find()
    if found is None:
        how = f"apt-get install {package}" if package else "Docker's documentation says how"
        raise SetupError(
            f"Docker Compose is not installed, or too old. Install version 2, or 1.28 and newer ({how}), and "
            "run this again."
        )
    return found


def _find() -> list[str] | None:
    for candidate in CANDIDATES:
        if shutil.which(candidate[0]) is None:
            continue
        asked = subprocess.run(
            [*candidate, "version", "--short"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and version_numbers(asked.stdout) >= MINIMUM:
            return list(candidate)
    return None


def version_numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of `1.29.2` or `v2.32.1-desktop.1`; empty where there are none."""
    match = re.match(r"v?(\d+)\.(\d+)", text.strip())
    return tuple(int(number) for number in match.groups()) if match else ()


@dataclass(frozen=True)
class Compose:
    """Compose for one project: its files, its settings, and the engine that it speaks to."""

    words: Sequence[str]
    checkout: Path
    settings: Path
    project: str
    docker_host: str
    log: Path
    # Which profiles' services a command is about, beside those that have none; empty: as the settings say.
    profiles: str = ""
    # The later ones add to the first.
    files: Sequence[str] = ("compose.yaml",)

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        own = ["--project-name", self.project, "--env-file", str(self.settings)]
        files = [word for file in self.files for word in ("--file", str(self.checkout / file))]
        return [*self.words, *own, *files, *arguments]

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command whose words go to the log; the caller waits for it."""
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(self.command(*arguments))}\n".encode())
            log.flush()
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.checkout,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def run(self, *arguments: str) -> None:
        """A command from its start to its end; raises ``SetupError`` with its last words when it fails."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.begin(*arguments) as process:
            self.wait(process)
        if process.returncode != 0:
            raise SetupError(self.failed(arguments[0], before))

    def become(self, *arguments: str) -> NoReturn:
        """Be this command from now on, with the caller's own input and output."""
        os.chdir(self.checkout)
        command = self.command(*arguments)
        os.execvpe(command[0], command, self._environment())  # noqa: S606 - Nothing is left to do here.

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end. Ctrl-C reaches it too, and it is given the time to clean up after itself."""
        try:
            process.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                process.wait(CLEAN_UP_SECONDS)
            process.kill()
            raise

    def failed(self, verb: str, since: int) -> str:
        """Why a command failed, by what it wrote to the log after the first ``since`` bytes."""
        with self.log.open("rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        lines = "\n".join(f"    {line}" for line in text.strip().splitlines()[-8:])
        return (
            f"`{' '.join(self.words)} {verb}` failed; its whole log is {self.log}. Its last lines:\n{lines}"
        )

    def _environment(self) -> dict[str, str]:
        # The settings file alone decides: a variable that is set by chance (HTTPS_PORT has been read into the
        # file already) must not give `down` another stack than `up` started.
        names = {line.split("=", 1)[0] for line in self.settings.read_text().splitlines() if "=" in line}
        kept = {name: value for name, value in os.environ.items() if name not in names}
        for name in ("COMPOSE_FILE", "COMPOSE_PROFILES", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"):
            kept.pop(name, None)
        if self.profiles:
            kept["COMPOSE_PROFILES"] = self.profiles
        return {**kept, "DOCKER_HOST": self.docker_host, "COMPOSE_ANSI": "never", "DOCKER_BUILDKIT": "0"}
