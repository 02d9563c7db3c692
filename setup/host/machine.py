"""Facts about this machine, and installing Debian packages on it.

Facts are read once into a frozen value, so that the decisions that rest on them are pure.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from setup.console import SetupError, step

# How long a program that was interrupted may take to undo what it began.
CLEAN_UP_SECONDS = 30


@dataclass(frozen=True)
class Machine:
    """What decides how things can be installed and started here."""

    system: str  # "Linux", "Darwin", …
    distribution: str  # ID of os-release: "debian", "ubuntu", …; empty where there is none.
    suite: str  # VERSION_CODENAME: "bookworm", "noble", …; empty where there is none.
    is_root: bool
    has_apt: bool
    has_systemd: bool

    @property
    def can_install(self) -> bool:
        """Whether `apt_install` may be used."""
        return self.is_root and self.has_apt and self.distribution in {"debian", "ubuntu"}


def look(os_release: Path = Path("/etc/os-release")) -> Machine:
    """Read the facts from the machine."""
    release = read_os_release(os_release.read_text() if os_release.exists() else "")
    return Machine(
        system=platform.system(),
        distribution=release.get("ID", ""),
        suite=release.get("VERSION_CODENAME", ""),
        is_root=os.geteuid() == 0,
        has_apt=shutil.which("apt-get") is not None,
        # The documented test (sd_booted): this directory exists only where systemd is the init process.
        has_systemd=Path("/run/systemd/system").is_dir(),
    )


def read_os_release(text: str) -> dict[str, str]:
    """The fields of an os-release file."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def run_to_end(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program quietly. Ctrl-C reaches it too, and it is given the time to clean up after itself."""
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=CLEAN_UP_SECONDS)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def apt_install(packages: list[str], why: str) -> None:
    """Install Debian packages, saying so first. Only where `Machine.can_install`."""
    names = " ".join(packages)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"Installing {names} with apt-get ({why})"):
        # Stale lists are no reason to stop: the packages may be there all the same.
        run_to_end(["apt-get", "update", "-qq"], environment)
        # An installation that was cut off (Ctrl-C, say) is finished first; otherwise this does nothing.
        run_to_end(["dpkg", "--configure", "-a"], environment)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        done = run_to_end(install, environment)
        if done.returncode != 0:
            last = "\n".join(done.stdout.strip().splitlines()[-5:])
            raise SetupError(
                f"apt-get could not install {names}; install it by hand and run this again.\n{last}"
            )
