"""Where things lie: the checkout, and everything under `.state/` that this installation keeps.

Everyone in this room asks here for paths. It makes directories and the installation's id, nothing else.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from setup.console import SetupError

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
    def secrets(self) -> Path:
        """The full stack's secrets; only their owner may enter."""
        return self.state / "secrets"

    @property
    def stack_settings(self) -> Path:
        """The full stack's settings, as compose reads them."""
        return self.state / "stack.env"

    @property
    def swarm_settings(self) -> Path:
        """The settings of the stack on a Swarm, as `docker stack deploy` reads them; there while it runs."""
        return self.state / "swarm.env"

    @property
    def registry(self) -> Path:
        """The certificates of the registry that the stack brings along, and the script that trusts them."""
        return self.state / "registry"

    @property
    def stack_files(self) -> Path:
        """Copies of the configuration files that containers of the full stack read."""
        return self.state / "stack"

    @property
    def promtool(self) -> Path:
        """The program that checks alert rules, where this machine has none."""
        return self.state / "tools" / "promtool"

    @property
    def root_certificate(self) -> Path:
        """The root certificate of the full stack's proxy, for its callers to trust."""
        return self.state / "ca.crt"

    @property
    def engine_record(self) -> Path:
        """What is remembered about the engine."""
        return self.state / "engine.json"

    @property
    def installation_file(self) -> Path:
        """What holds the installation's id, and marks the state's directory as ours."""
        return self.state / "installation"

    def shown(self, path: Path) -> str:
        """A path as the reader can use it from the checkout."""
        return str(path.relative_to(self.checkout)) if path.is_relative_to(self.checkout) else str(path)

    def make(self) -> None:
        """Make the directories that must exist before anything runs; only their owner may enter.

        Raises ``SetupError`` where the state's directory exists and is not ours.
        """
        try:
            try:
                self.state.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                self._require_ours()
            self.installation()  # From now on the directory is known to be ours.
            for directory in (self.run, self.logs, self.consumer):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"The server's data cannot be kept in {self.state}: {error.strerror or error}. Choose "
                "another place with STATE_DIRECTORY=, or run this as the user to whom it belongs."
            ) from error

    def _require_ours(self) -> None:
        if not self.state.is_dir():
            raise SetupError(f"{self.state} is not a directory; choose another place with STATE_DIRECTORY=.")
        facts = self.state.stat()
        if facts.st_uid != os.geteuid():
            raise SetupError(
                f"{self.state} belongs to another user; choose another place with STATE_DIRECTORY=, or run "
                "this as that user."
            )
        # The checkout's own .state/ is ours by its name.
        named_by_hand = self.state != self.checkout / ".state"
        if named_by_hand and not self.installation_file.is_file() and any(self.state.iterdir()):
            raise SetupError(
                f"{self.state} holds files that are not an installation's; name a new or an empty directory "
                "in STATE_DIRECTORY=."
            )
        if stat.S_IMODE(facts.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise SetupError(
                f"Other users may write to {self.state}, and keys lie there; `chmod 700 {self.state}` first."
            )

    def installation(self) -> str:
        """The short id that labels all that this installation makes on an engine; random, made once."""
        path = self.installation_file
        # An empty file is what a full disk may leave; it names nobody.
        if not path.exists() or not path.read_text().strip():
            path.write_text(secrets.token_hex(4) + "\n")
        return path.read_text().strip()

    def supervisor_socket(self) -> Path:
        """Where supervisord listens; a checkout with a very long path gets a short one elsewhere.

        Raises ``SetupError`` where somebody else could have prepared that place.
        """
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            return path
        short = Path(f"/tmp/inferenceserver-{os.getuid()}-{self.installation()}")  # noqa: S108  # Checked below.
        with suppress(FileExistsError):
            short.mkdir(mode=0o700)
        facts = short.lstat()  # A link there would lead to a directory of somebody else's choice.
        private = stat.S_ISDIR(facts.st_mode) and not stat.S_IMODE(facts.st_mode) & 0o077
        if not private or facts.st_uid != os.getuid():
            raise SetupError(
                f"{short} must be a directory that only this user may enter, and is not; remove it, or move "
                "the checkout to a shorter path."
            )
        return short / "supervisor.sock"
