"""What people see in the terminal while a machine is set up: each long step is announced, then timed.

Every module of this room prints through here. It never asks anything and never decides anything.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SetupError(Exception):
    """Something that the reader must put right; the message is one sentence that says how."""


def say(line: str) -> None:
    """Print one line at once."""
    print(line, flush=True)


def detail(line: str) -> None:
    """Print one line that belongs to the step above it."""
    print(f"  {line}", flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a long step before it begins; say how long it took once it has ended well."""
    say(f"→ {title}")
    started = time.monotonic()
    yield
    detail(f"done in {time.monotonic() - started:.1f} s")


def fail(message: str) -> None:
    """Print an error for the reader on standard error."""
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
