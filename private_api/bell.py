"""Tells waiting requests that something about a topic has changed, so that long polls answer at once.

The bell may stay silent (another process made the change): whoever waits looks at the database again
every second all the same. It therefore never carries data.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


def task_topic(task_id: str) -> str:
    """The topic of one task: its state, its log, a wish to cancel it."""
    return f"task:{task_id}"


class Listener:
    """One waiting request: hears every ring since it began to listen, even before it waits."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def wait(self, timeout_seconds: float) -> None:
        """Return when the bell has rung since the last wait, or after ``timeout_seconds``."""
        self._rung.wait(timeout_seconds)
        self._rung.clear()

    def ring(self) -> None:
        """Wake the listener, now or when it next waits."""
        self._rung.set()


class Bell:
    """Rings within one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: defaultdict[str, list[Listener]] = defaultdict(list)

    @contextmanager
    def listening(self, *topics: str) -> Iterator[Listener]:
        """Listen to ``topics``; look at the database inside the block, so that no change falls between."""
        listener = Listener()
        with self._lock:
            for topic in topics:
                self._listeners[topic].append(listener)
        try:
            yield listener
        finally:
            with self._lock:
                for topic in topics:
                    self._listeners[topic].remove(listener)
                    if not self._listeners[topic]:
                        del self._listeners[topic]

    def ring(self, topic: str) -> None:
        """Wake everybody who listens to ``topic``."""
        with self._lock:
            listeners = list(self._listeners.get(topic, ()))
        for listener in listeners:
            listener.ring()
