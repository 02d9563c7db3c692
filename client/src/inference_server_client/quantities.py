"""Sizes and durations as people write them, to bytes and seconds and back. Pure functions."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_SIZE_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:d|h|min|m|s))+|\d+(?:\.\d+)?", re.IGNORECASE | re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(d|h|min|m|s)?", re.IGNORECASE | re.ASCII)
_DURATION_FACTORS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes in ``4g``, ``512m``, ``1.5GiB`` or ``1048576``; units are powers of 1024, as with Docker.

    Raises ``ValueError`` with a sentence for people.
    """
    match = _SIZE.fullmatch(text.strip())
    size = 0 if match is None else int(float(match[1]) * _SIZE_FACTORS[(match[2] or "").lower()])
    if not 0 < size < 1 << 63:
        raise ValueError(f"{text!r} is not a size; write for example 4g, 512m or 1048576.")
    return size


def parse_duration(text: str) -> float:
    """Seconds in ``30m``, ``1h30m``, ``2d``, ``1.5h``, ``90s`` or ``90``.

    Raises ``ValueError`` with a sentence for people.
    """
    compact = text.strip().replace(" ", "")
    seconds = 0.0
    if _DURATION.fullmatch(compact):
        seconds = sum(
            float(number) * _DURATION_FACTORS[unit.lower()]
            for number, unit in _DURATION_PART.findall(compact)
        )
    # Ten thousand years is more than anybody means and less than what dates can hold.
    if not 0 < seconds < 10_000 * 365 * 86400:
        raise ValueError(f"{text!r} is not a duration; write for example 30m, 1h30m, 90s or 2d.")
    return seconds


def format_size(size_bytes: int) -> str:
    """Bytes for people: ``0 B``, ``1.5 KiB``, ``12 GiB``."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """Seconds for people: ``0.4s``, ``12s``, ``3m05s``, ``2h00m``, ``3d04h``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
