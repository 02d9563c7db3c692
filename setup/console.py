"""What people see in the terminal while a machine is set up: each long step is announced, then timed.

Every module of this room prints through here. It never asks anything and never decides anything.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class SetupError(Exception):
    """Something that the reader must put right; the message is one sentence that says how."""


def say(line: str) -> None:
    """Print one line at once."""
    print(worded(line, os.environ.get("SETUP_COMMAND", "")), flush=True)


def worded(text: str, command: str) -> str:
    """The text for a reader without a checkout: ``command`` does there what `make` and the client do here."""
    if not command:
        return text
    for_setup = re.sub(r"\bmake (?=stack-|backup|restore|rotate-|proxy)", lambda _: f"{command} ", text)
    return for_setup.replace(".venv/bin/infer", f"{command} infer")


def detail(line: str) -> None:
    """Print one line that belongs to the step above it."""
    say(f"  {line}")


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
    told = worded(message, os.environ.get("SETUP_COMMAND", ""))
    print(f"error: {told}", file=sys.stderr, flush=True)
