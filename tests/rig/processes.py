"""One service of the server under test, as a real process that may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Service:
    """``python -m MODULE`` with a log of its own, in any number of lives."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path, name: str = "") -> None:
        self.module = module
        self.name = name or module
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self, **changes: str) -> None:
        """Begin a life; ``changes`` to the environment last for this life only."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                cwd=ROOT,
                env={**os.environ, **self.environment, **changes},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """The process and all its descendants, parents first."""
        found = [self.pid]
        for pid in found:
            found.extend(_children(pid))
        return found

    def kill(self) -> None:
        """SIGKILL to the process and all its descendants, as when the machine loses them at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def stop(self, seconds: float = 40.0) -> None:
        """SIGTERM, and the time to end well; one that takes longer is killed and fails the test."""
        if self._process is None or not self.running:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {seconds:g} s of SIGTERM") from None

    def last_lines(self, count: int = 40) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        text = self.log.read_bytes()[-200_000:].decode("utf-8", "replace")
        return "\n".join(line[:2000] for line in text.splitlines()[-count:])


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in listed.split()]
