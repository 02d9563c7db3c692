"""The life of a task: its states, the phases inside them, and every move that is allowed.

The private API performs the moves; everybody else only reads the names.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise


class TaskState(StrEnum):
    """Where a task is in its life; exactly three of these are final."""

    QUEUED = "queued"  # Accepted and stored; waits for a worker.
    STARTING = "starting"  # A worker holds the lease and prepares image, input and content.
    RUNNING = "running"  # The model's container runs, or its output is being stored.
    SUCCEEDED = "succeeded"  # The output is stored and its hash recorded.
    FAILED = "failed"  # It will not run again; reason_code and reason say why.
    CANCELED = "canceled"  # Somebody asked for it to stop before it ended.


class Phase(StrEnum):
    """What the holder of the lease is doing; each phase has a time limit of its own."""

    FETCHING = "fetching"  # Input and static content are on their way to the node.
    PULLING = "pulling"  # The image is on its way to the node.
    RUNNING = "running"  # The model's container runs.
    UPLOADING = "uploading"  # The output is zipped and sent.


TERMINAL_STATES = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED})
LEASED_STATES = frozenset({TaskState.STARTING, TaskState.RUNNING})

# A requeue (STARTING or RUNNING back to QUEUED) happens when a lease is lost, the infrastructure fails,
# or a worker hands its task back because it is told to stop.
TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.STARTING, TaskState.FAILED, TaskState.CANCELED}),
    TaskState.STARTING: frozenset(
        {TaskState.RUNNING, TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELED}
    ),
    TaskState.RUNNING: frozenset(
        {TaskState.SUCCEEDED, TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELED}
    ),
    TaskState.SUCCEEDED: frozenset(),
    TaskState.FAILED: frozenset(),
    TaskState.CANCELED: frozenset(),
}

_STATE_OF_PHASE = {
    Phase.FETCHING: TaskState.STARTING,
    Phase.PULLING: TaskState.STARTING,
    Phase.RUNNING: TaskState.RUNNING,
    Phase.UPLOADING: TaskState.RUNNING,
}


def is_terminal(state: TaskState) -> bool:
    """Whether a task in this state has ended for good."""
    return state in TERMINAL_STATES


def may_move(old: TaskState, new: TaskState) -> bool:
    """Whether the state machine has an arrow from ``old`` to ``new``."""
    return new in TRANSITIONS[old]


def check_moves(*states: TaskState) -> None:
    """Raise ``ValueError`` unless a task may go through ``states``, staying in some perhaps."""
    for old, new in pairwise(states):
        if old is not new and not may_move(old, new):
            raise ValueError(f"a task does not go from {old} to {new}")


def state_of_phase(phase: Phase) -> TaskState:
    """The state that a leased task shows while its worker is in ``phase``."""
    return _STATE_OF_PHASE[phase]
