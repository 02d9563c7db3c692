"""promtool, Prometheus' own judge of its configuration and rules: the tests ask it about `monitoring/`.

Debian has it in the package of the whole server, which would start one when installed; so only the program is
taken out of the package, into `.state/`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from setup.console import SetupError, step
from setup.host.machine import Machine, run_to_end
from setup.places import Places

_INSIDE = "./usr/bin/promtool"


def ensure(places: Places, machine: Machine) -> Path:
    """The path of promtool; fetched where it is missing and this machine has Debian's packages."""
    found = find(places)
    if found is None and machine.has_apt and machine.distribution in {"debian", "ubuntu"}:
        with step("Fetching promtool with apt-get (the tests check the alert rules with it)"):
            _fetch(places.promtool)
        found = find(places)
    if found is None:
        raise SetupError(
            "The tests need promtool, a part of Prometheus, on the PATH. Install it and run this again."
        )
    return found


def find(places: Places) -> Path | None:
    """The promtool that is there."""
    path = shutil.which("promtool") or shutil.which(places.promtool)
    return Path(path) if path else None


def _fetch(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        # As root, apt-get fetches as a user of its own.
        Path(directory).chmod(0o755)
        # Stale or missing lists of packages are renewed where this user may do that.
        script = (
            "{ apt-get update -qq || true; } && "
            f"apt-get download -qq prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x {_INSIDE}"
        )
        done = run_to_end(["sh", "-c", f"cd {shlex.quote(directory)} && {script}"], os.environ)
        if done.returncode != 0:
            last = "\n".join(done.stdout.strip().splitlines()[-3:])
            raise SetupError(f"promtool could not be fetched; put it on the PATH and run this again.\n{last}")
        Path(directory, _INSIDE).rename(target)
