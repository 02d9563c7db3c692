"""How often nodes report: promptly where they are few, so that a thousand cost little. Pure."""

from __future__ import annotations

_OFTEN_SECONDS = 10.0
# A node is silent after thirty seconds; a report may be late by half its time before that.
_RARELY_SECONDS = 20.0
# What one service takes in without notice, beside its other work.
_REPORTS_PER_SECOND = 30.0


def report_seconds(nodes: int) -> float:
    """When a node should report again, where so many do."""
    return min(max(_OFTEN_SECONDS, nodes / _REPORTS_PER_SECOND), _RARELY_SECONDS)
