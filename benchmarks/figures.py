"""One measured ratio, and how a list of them is printed."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, against what, and what was hoped for."""

    name: str
    ours: str
    theirs: str
    ratio: float
    target: str
    met: bool


def median_and_spread(seconds: list[float]) -> str:
    """A median with its extremes, in milliseconds."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{middle * 1000:.0f} ms ({low * 1000:.0f} to {high * 1000:.0f})"


def percentile(seconds: list[float], part: float) -> float:
    """The smallest of the times that at least ``part`` of them (0.95, say) do not exceed."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = ["| what | ours | against | ratio | target | met |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {f.name} | {f.ours} | {f.theirs} | {f.ratio:.2f} | {f.target} | {'yes' if f.met else 'NO'} |"
        for f in figures
    ]
    return "\n".join(rows)
