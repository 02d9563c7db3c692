"""Where things lie: the checkout, and everything under `.state/` that this installation keeps.

Everyone in this room asks here for paths. It makes directories and the installation's id, nothing else.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# A unix socket's path may be 107 bytes long on Linux and 103 on macOS.
LONGEST_SOCKET_PATH = 100


@dataclass(frozen=True)
class Places:
    """The paths of one installation: one checkout with one `.state/`."""

    checkout: Path
    state: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Places:
        """This checkout, with its state in `.state/` or where `STATE_DIRECTORY` says."""
        checkout = Path(__file__).resolve().parent.parent
        state = environment.get("STATE_DIRECTORY")
        return cls(checkout, Path(state).resolve() if state else checkout / ".state")

    @property
    def run(self) -> Path:
        """What lives only while the server runs: configuration, pid file, socket."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """Logs of the services, of image builds, and of an engine that was started from here."""
        return self.state / "logs"

    @property
    def consumer(self) -> Path:
        """The consumer's own directory: what it mounts into models' containers lies below it."""
        return self.state / "consumer"

    @property
    def admin_key(self) -> Path:
        """The first admin key, made by the private API when it first starts."""
        return self.state / "admin.key"

    @property
    def worker_key(self) -> Path:
        """The key that the embedded consumer uses."""
        return self.state / "worker.key"

    @property
    def engine_record(self) -> Path:
        """What is remembered about the engine."""
        return self.state / "engine.json"

    def make(self) -> None:
        """Make the directories that must exist before anything runs; only their owner may enter."""
        for directory in (self.state, self.run, self.logs, self.consumer):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.chmod(0o700)

    def installation(self) -> str:
        """The short id that labels all that this installation makes on an engine; random, made once."""
        path = self.state / "installation"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            path.write_text(secrets.token_hex(4) + "\n")
            return path.read_text().strip()

    def supervisor_socket(self) -> Path:
        """Where supervisord listens; a checkout with a very long path gets a short one elsewhere."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        short = Path(f"/tmp/inferenceserver-{os.getuid()}-{self.installation()}")  # noqa: S108  # Made 0700 below.
        short.mkdir(mode=0o700, exist_ok=True)
        if short.stat().st_uid != os.getuid():
            raise PermissionError(f"{short} belongs to somebody else; move the checkout to a shorter path")
        return short / "supervisor.sock"
