"""The parent process: one child per slot, started again when it dies, told to stop when we are.

``__main__`` enters without ``--slot``. Children are processes so that one slot's trouble is no other's. A
child whose parent dies ends at once (it holds the other end of a pipe); its slot's next life adopts what
runs.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event
from types import FrameType

from consumer.node.slots import Slot
from consumer.outside.backoff import delays
from serving.metrics import forget_process

_log = logging.getLogger(__name__)

# A child that has lived this long did not die of its start.
_HEALTHY_SECONDS = 30.0
_POLL_SECONDS = 0.2
# What a child may take beyond its time to leave: a last word to a slow server, and cleaning.
_BEYOND_LEAVE_SECONDS = 30.0

Start = Callable[[Slot], "subprocess.Popen[bytes]"]


class Child:
    """One slot's process, in all its lives."""

    def __init__(self, slot: Slot, start: Start) -> None:
        self._slot = slot
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._not_before = 0.0
        self._pauses: Iterator[float] = delays(0.2, 10.0)

    def keep_alive(self) -> None:
        """Start it unless it runs or died too recently."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            if now - self._began > _HEALTHY_SECONDS:
                self._pauses = delays(0.2, 10.0)
            said = {"action": "slot_died", "slot": self._slot.name}
            _log.warning("slot ended with %s", self._process.returncode, extra=said)
            forget_process(self._process.pid)
            self._process = None
            self._not_before = now + next(self._pauses)
        if self._process is None and now >= self._not_before:
            try:
                self._process, self._began = self._start(self._slot), now
            except OSError as error:
                # No room for another process at the moment: the other slots must not end with it.
                said = {"action": "slot_not_started", "slot": self._slot.name}
                _log.warning("the slot's process cannot be started: %s", error, extra=said)
                self._not_before = now + next(self._pauses)

    def terminate(self) -> None:
        """Ask it to drain."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for its end until ``deadline``, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_process(slot: Slot, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A child process for ``slot`` with this environment, which inherits our log."""
    command = [sys.executable, "-m", "consumer", "--slot", slot.name, "--supervised"]
    if slot.gpu:
        command += ["--gpu", slot.gpu]
    # A session of its own: Ctrl-C in a terminal reaches the parent only, which passes it on in order.
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(environment), start_new_session=True)


def supervise(slots: list[Slot], leave_seconds: float, start: Start, may_begin: Callable[[], bool]) -> None:
    """Keep one child per slot alive until SIGTERM or SIGINT, then let them drain and wait for them.

    None is started before ``may_begin()``, which is never taken back.
    """
    stopping = Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    children = [Child(slot, start) for slot in slots]
    while not stopping.is_set():
        if may_begin():
            for child in children:
                child.keep_alive()
        stopping.wait(_POLL_SECONDS)
    for child in children:
        child.terminate()
    deadline = time.monotonic() + leave_seconds + _BEYOND_LEAVE_SECONDS
    for child in children:
        child.wait(deadline)
