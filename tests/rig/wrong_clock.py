"""A Python whose clock is wrong: for processes of the server under test, and all that they start.

Tests enter with ``environment``. The interpreter runs ``sitecustomize`` before any program, which moves what
``time.time`` and ``datetime.now`` say; the monotonic clock goes on, as on a machine that is off by as much.
"""

from __future__ import annotations

from pathlib import Path

_SITECUSTOMIZE = """
import datetime, time

_offset, _time, _time_ns = {offset!r}, time.time, time.time_ns
time.time = lambda: _time() + _offset
time.time_ns = lambda: _time_ns() + int(_offset * 1e9)


class _Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)


datetime.datetime = _Moved
"""


def environment(directory: Path, offset_seconds: float) -> dict[str, str]:
    """Variables with which every Python is off by so much; ``directory`` is an empty one for its use."""
    (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(offset=offset_seconds))
    return {"PYTHONPATH": str(directory)}
