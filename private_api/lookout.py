"""Watches the queue for all held claims of this process together, and wakes those that a waiting task fits.

A thousand slots may wait here: one look a second serves them all, and one at once when somebody says that
there is news. A look only wakes; whoever is woken claims for itself, and the claim decides. The same thread
sees which of the waiting have hung up.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from contracts.messages import SlotKind
from private_api.store.next_task import Slot

_log = logging.getLogger(__name__)

# News of other processes is nowhere but in the database.
_LOOK_SECONDS = 1.0
# However much news there is, looking takes a fifth of the time at most.
_REST = 4.0


@dataclass(frozen=True, kw_only=True)
class Due:
    """Tasks of one model that a claim could have now: so many, and which slots they fit."""

    count: int
    fits: Callable[[Slot], bool]


Look = Callable[[SlotKind], Sequence[Due]]


class Waiter:
    """One held claim."""

    def __init__(self, kinds: Sequence[SlotKind], key_id: str, node: str, name: str, sock: Any) -> None:
        self.kinds = kinds
        # What fits it; whoever claims for it keeps this up to date. Null until that was looked up.
        self.slot: Slot | None = None
        self.key_id = key_id
        self.node = node
        self.name = name
        self.sock: socket.socket | None = sock
        # Set while it follows a call, so that one task calls one waiter.
        self.called = False
        # Whether its slot wants no answer any more but that there is none.
        self.withdrawn = False
        self._woken = threading.Event()

    def wait(self, seconds: float) -> None:
        """Return when woken, or after ``seconds``."""
        self._woken.wait(seconds)
        self._woken.clear()

    def wake(self) -> None:
        """End its wait, now or when it begins."""
        self._woken.set()


class Lookout:
    """``look`` tells what is due of a kind; ``stopping`` ends everything."""

    def __init__(self, look: Look, stopping: threading.Event) -> None:
        self._look = look
        self._stopping = stopping
        self._lock = threading.Lock()
        # In the order in which they began to wait.
        self._waiters: dict[Waiter, None] = {}
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, waiter: Waiter) -> Iterator[Waiter]:
        """Have ``waiter`` watched for; look at the queue inside the block, so that nothing falls between."""
        with self._lock:
            self._waiters[waiter] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="lookout", daemon=True)
                self._thread.start()
        try:
            yield waiter
        finally:
            with self._lock:
                del self._waiters[waiter]

    def settle(self, waiter: Waiter) -> None:
        """Have a waiter that was called in vain wait on, behind all others."""
        with self._lock:
            if waiter.called:
                waiter.called = False
                del self._waiters[waiter]
                self._waiters[waiter] = None

    def ring(self) -> None:
        """Say that there may be something new in the queue."""
        self._news.set()

    def withdraw(self, key_id: str, node: str, name: str) -> bool:
        """Have the claim that this slot left here answered; whether there was one."""
        found = self._those(lambda w: (w.key_id, w.node, w.name) == (key_id, node, name))
        for waiter in found:
            waiter.withdrawn = True
            waiter.wake()
        return bool(found)

    def make_room(self, key_id: str) -> bool:
        """End a claim of the key that has most, where that is not the one which asks; whether it did."""
        waiting = self._those(lambda w: not w.withdrawn)
        counts = Counter(waiter.key_id for waiter in waiting)
        if not counts:
            return False
        greediest, most = counts.most_common(1)[0]
        if most <= counts[key_id] + 1:
            return False
        waiter = next(waiter for waiter in waiting if waiter.key_id == greediest)
        waiter.withdrawn = True
        waiter.wake()
        return True

    def recall(self, *, node: str | None = None, key_id: str | None = None) -> None:
        """Have the claims of a node, or of a key, look for themselves: something about it has changed."""
        for waiter in self._those(lambda w: w.node == node or w.key_id == key_id):
            waiter.wake()

    def _those(self, wanted: Callable[[Waiter], bool]) -> list[Waiter]:
        with self._lock:
            return [waiter for waiter in self._waiters if wanted(waiter)]

    def _watch(self) -> None:
        looked_at = 0.0
        while not self._stopping.is_set():
            self._news.wait(_LOOK_SECONDS)
            self._news.clear()
            began = time.monotonic()
            try:
                self._call_those_wanted()
                if began - looked_at >= _LOOK_SECONDS:
                    looked_at = began
                    for waiter in _hung_up(self._those(lambda _: True)):
                        waiter.wake()
            except Exception as error:  # noqa: BLE001 - Everybody waits for this thread.
                # A database that is away, mostly: all of it is tried again in a moment.
                _log.warning("the queue cannot be looked at: %s", error, extra={"action": "lookout_blind"})
            self._stopping.wait((time.monotonic() - began) * _REST)
        for waiter in self._those(lambda _: True):
            waiter.wake()

    def _call_those_wanted(self) -> None:
        waiting = self._those(lambda _: True)
        for kind in SlotKind:
            of_kind = [waiter for waiter in waiting if kind in waiter.kinds]
            if not of_kind:
                continue
            for due in self._look(kind):
                call(due, of_kind)


def call(due: Due, waiters: Sequence[Waiter]) -> None:
    """Wake as many of those that it fits as there are tasks, the first that came first."""
    open_calls = due.count
    idle = []
    for waiter in waiters:
        if waiter.slot is None or not due.fits(waiter.slot):
            continue
        if waiter.called:
            # On its way already, perhaps to one of these.
            open_calls -= 1
        else:
            idle.append(waiter)
        if len(idle) >= due.count:
            break
    for waiter in idle[: max(0, open_calls)]:
        waiter.called = True
        waiter.wake()


def _hung_up(waiters: Sequence[Waiter]) -> list[Waiter]:
    """Those whose connection has something to tell: that it has ended, as a rule."""
    by_descriptor: dict[int, Waiter] = {}
    poll = select.poll()
    for waiter in waiters:
        descriptor = -1 if waiter.sock is None else waiter.sock.fileno()
        if descriptor >= 0:
            by_descriptor[descriptor] = waiter
            poll.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(0)]
