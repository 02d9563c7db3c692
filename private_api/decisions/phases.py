"""How long each phase of a leased task may last before the server takes the task back.

The worker enforces tighter limits of its own; these catch a worker that does not.
"""

from __future__ import annotations

from contracts.states import Phase

# A slow registry and tens of gigabytes of layers or static content still fit.
_PULLING_SECONDS = 2 * 3600.0
_FETCHING_SECONDS = 2 * 3600.0
_UPLOADING_SECONDS = 2 * 3600.0
# Between the model's own limit and ours: time to kill it, read its verdict and say so.
_RUNNING_GRACE_SECONDS = 120.0

_STAGE = {Phase.FETCHING: 0, Phase.PULLING: 0, Phase.RUNNING: 1, Phase.UPLOADING: 2}


def phase_limit_seconds(phase: Phase, time_limit_seconds: float) -> float:
    """The longest that ``phase`` may last for a model with this time limit, in seconds."""
    match phase:
        case Phase.PULLING:
            return _PULLING_SECONDS
        case Phase.FETCHING:
            return _FETCHING_SECONDS
        case Phase.UPLOADING:
            return _UPLOADING_SECONDS
        case Phase.RUNNING:
            return time_limit_seconds + _RUNNING_GRACE_SECONDS


def follows(phase: Phase, earlier: Phase) -> bool:
    """Whether a worker in ``earlier`` may say that it is in ``phase`` now.

    A heartbeat may arrive late, and a worker must not win time by going in circles. Fetching and pulling go
    on side by side.
    """
    return _STAGE[phase] >= _STAGE[earlier]


def renews_limit(phase: Phase, earlier: Phase) -> bool:
    """Whether the move from ``earlier`` to ``phase`` begins a new time limit."""
    return _STAGE[phase] > _STAGE[earlier]


def must_grant_period(*, since_last_pass_seconds: float | None, pass_seconds: float) -> bool:
    """Whether the reaper was away so long that workers had no chance to renew; it then grants a full lease.

    ``since_last_pass_seconds`` is null before the first pass ever.
    """
    return since_last_pass_seconds is None or since_last_pass_seconds > 3 * pass_seconds
