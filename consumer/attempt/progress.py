"""What a model says about its progress: the last valid line of a small file that it may write anything to.

``watch.py`` enters each second. The file is a stranger's: no link is followed, no pipe waited for, and what
it says is checked value by value.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from pathlib import Path

from contracts.messages import Progress

# Only the end of the file counts, and a line longer than this is none.
TAIL_BYTES = 64 * 1024
_MESSAGE_CHARACTERS = 200


def read_progress(path: Path) -> Progress | None:
    """The progress that the file at ``path`` states, None when it states none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        tail = os.pread(descriptor, TAIL_BYTES, max(0, status.st_size - TAIL_BYTES))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return parse_progress(tail)


def parse_progress(tail: bytes) -> Progress | None:
    """The last line in ``tail`` that is a JSON object with a valid ``fraction`` or ``message``."""
    for line in reversed(tail.splitlines()):
        # A nesting of thousands is no progress, and would only exhaust the parser's stack.
        with contextlib.suppress(ValueError, RecursionError):
            progress = _progress(json.loads(line))
            if progress is not None:
                return progress
    return None


def _progress(value: object) -> Progress | None:
    if not isinstance(value, dict):
        return None
    fraction, message = _fraction(value.get("fraction")), _message(value.get("message"))
    return None if fraction is None and message is None else Progress(fraction=fraction, message=message)


def _fraction(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return None if math.isnan(value) else float(value)


def _message(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    shown = "".join(c if c.isprintable() else " " for c in value[: 4 * _MESSAGE_CHARACTERS])
    return shown[:_MESSAGE_CHARACTERS].strip() or None
