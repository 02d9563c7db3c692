"""Ctrl-C kept out of moments that must not be cut in two. ``transfers`` enters while it watches a task."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Raise a Ctrl-C that comes inside only at the end; a second one is raised at once.

    What has been shown and what counts as shown change together in here: whoever goes on afterwards sees no
    line twice and misses none.
    """
    previous = signal.getsignal(signal.SIGINT)
    # Only the main thread is interrupted; and a command in the background may have been told to ignore it.
    if threading.current_thread() is not threading.main_thread() or previous is signal.SIG_IGN:
        yield
        return
    caught = False

    def note(_signal: int, _frame: FrameType | None) -> None:
        nonlocal caught
        if caught:
            raise KeyboardInterrupt
        caught = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous or signal.default_int_handler)
    if caught:
        raise KeyboardInterrupt
