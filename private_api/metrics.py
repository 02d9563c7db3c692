"""What the private API counts: tasks from their acceptance to their end, long polls, connections.

Whoever brings a change about counts it here once it is committed. What can be asked of the database at any
time (how long the queue is, say) is asked at each scrape instead; see ``private_api.scrape``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Engine, event

from contracts.messages import SlotKind
from contracts.reasons import Fault, ReasonCode, fault_of
from contracts.states import TERMINAL_STATES, Phase, TaskState
from serving.metrics import PHASE_BUCKETS

TASKS_ACCEPTED = Counter("inferenceserver_tasks_accepted", "Tasks accepted, by kind of slot.", ["kind"])
TASKS_CLAIMED = Counter("inferenceserver_tasks_claimed", "Attempts begun, by kind of slot.", ["kind"])
FINISHED = Counter(
    "inferenceserver_tasks_finished", "Tasks that ended, by state and reason.", ["state", "reason_code"]
)
REQUEUED = Counter(
    "inferenceserver_attempts_requeued",
    "Attempts that ended with their task back in the queue, by what ended them.",
    ["reason_code"],
)
LEASES_EXPIRED = Counter(
    "inferenceserver_leases_expired", "Leases that ran out because their worker was not heard of."
)
PHASE_SECONDS = Histogram(
    "inferenceserver_task_phase_duration_seconds",
    "How long an attempt's task was queued before it, and what its worker says of each phase.",
    ["phase"],
    buckets=PHASE_BUCKETS,
)
HELD = Gauge(
    "inferenceserver_long_polls_held",
    "Requests held at this moment until something happens, by who waits.",
    ["holder"],
    multiprocess_mode="livesum",
)
CONNECTIONS = Gauge(
    "inferenceserver_database_connections", "Open connections to the database.", multiprocess_mode="livesum"
)
CONNECTIONS_IN_USE = Gauge(
    "inferenceserver_database_connections_in_use",
    "Connections to the database that somebody uses at this moment.",
    multiprocess_mode="livesum",
)

ANNOUNCED = Counter(
    "inferenceserver_announcements_confirmed", "Announcements that the broker has stored.", ["kind"]
)
ANNOUNCED_AGAIN = Counter(
    "inferenceserver_announcements_repeated",
    "Announcements made once more, because the broker held fewer than tasks were queued.",
    ["kind"],
)

QUEUED = "queued"
PEOPLE, WORKERS = "people", "workers"

# Shown from the start: a counter that appears with its first count hides that count.
for _kind in SlotKind:
    TASKS_ACCEPTED.labels(_kind.value)
    TASKS_CLAIMED.labels(_kind.value)
    ANNOUNCED.labels(_kind.value)
    ANNOUNCED_AGAIN.labels(_kind.value)
for _phase in (QUEUED, *Phase):
    PHASE_SECONDS.labels(str(_phase))
for _holder in (PEOPLE, WORKERS):
    HELD.labels(_holder)
for _code in ReasonCode:
    FINISHED.labels(TaskState.FAILED.value, _code.value)
    if fault_of(_code) is Fault.OURS:
        REQUEUED.labels(_code.value)
FINISHED.labels(TaskState.SUCCEEDED.value, "none")
FINISHED.labels(TaskState.CANCELED.value, ReasonCode.CANCELED_BY_USER.value)


def count_end(state: TaskState, code: ReasonCode | None, durations: Mapping[str, float]) -> None:
    """Count the end of an attempt that left its task in ``state`` because of ``code``; seconds by phase."""
    for phase in Phase:
        if phase.value in durations:
            PHASE_SECONDS.labels(phase.value).observe(max(0.0, durations[phase.value]))
    if state in TERMINAL_STATES:
        count_finished(state, code)
    else:
        REQUEUED.labels(code.value if code else "none").inc()


def count_finished(state: TaskState, code: ReasonCode | None, number: int = 1) -> None:
    """Count tasks that ended in ``state``."""
    if state is TaskState.CANCELED:
        # Whatever its worker said of the attempt, it was stopped because somebody asked for it.
        code = ReasonCode.CANCELED_BY_USER
    FINISHED.labels(state.value, code.value if code else "none").inc(number)


def count_connections(engine: Engine) -> None:
    """Have ``engine`` count its connections."""

    @event.listens_for(engine, "connect")
    def _opened(*_: Any) -> None:
        CONNECTIONS.inc()

    @event.listens_for(engine, "close")
    def _closed(*_: Any) -> None:
        CONNECTIONS.dec()

    @event.listens_for(engine, "checkout")
    def _taken(*_: Any) -> None:
        CONNECTIONS_IN_USE.inc()

    @event.listens_for(engine, "checkin")
    def _returned(*_: Any) -> None:
        CONNECTIONS_IN_USE.dec()
