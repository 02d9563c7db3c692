"""Long polls: hold an answer until something is so, for as long as the caller allows and we can afford."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from flask import request
from werkzeug.http import parse_options_header

from contracts.problems import ProblemCode
from contracts.timing import MAX_WAIT_SECONDS
from private_api.http.services import Services
from private_api.lookout import Waiter
from private_api.metrics import HELD, PEOPLE, WORKERS
from private_api.store.database import AWAY_ERRORS
from serving.problems import ProblemError
from serving.request_facts import facts_of
from serving.wire import client_is_gone

_T = TypeVar("_T")

# The bell may stay silent when another process made the change; a look this often bounds what that costs.
_LOOK_SECONDS = 1.0


def hold(
    services: Services,
    topics: list[str],
    seconds: float,
    look: Callable[[], _T | None],
    holder: str = WORKERS,
) -> _T | None:
    """What ``look`` finds, waiting up to ``seconds`` for it to find something; null when it never does."""
    facts_of(request.environ).held = seconds > 0
    with HELD.labels(holder).track_inprogress(), services.bell.listening(*topics) as listener:
        deadline = time.monotonic() + seconds
        while not client_is_gone(request.environ):
            remaining = deadline - time.monotonic()
            try:
                found = look()
            except AWAY_ERRORS:
                # Whoever waits goes on waiting: the database may be back before the time is up.
                if remaining <= 0 or services.stopping.is_set():
                    raise
                found = None
            remaining = deadline - time.monotonic()
            if found is not None or remaining <= 0 or services.stopping.is_set():
                return found
            listener.wait(min(remaining, _LOOK_SECONDS))
    # Nobody would hear the answer, and a task claimed for a worker that has left would wait for its lease.
    return None


def hold_for_task(
    services: Services,
    waiter: Waiter,
    seconds: float,
    look: Callable[[], _T | None],
    take: Callable[[], _T | None],
) -> _T | None:
    """A claim's answer, held up to ``seconds``: what ``look`` finds at first, ``take`` when there is work.

    Nothing is asked of the database in between, so that a thousand of them cost next to nothing.
    """
    facts_of(request.environ).held = seconds > 0
    if seconds <= 0:
        return look()
    deadline = time.monotonic() + seconds
    attempt = look
    with HELD.labels(WORKERS).track_inprogress(), services.lookout.waiting(waiter):
        while not client_is_gone(request.environ):
            try:
                found = attempt()
            except AWAY_ERRORS:
                # Whoever waits goes on waiting: the database may be back before the time is up.
                if services.stopping.is_set():
                    raise
                found = None
            services.lookout.settle(waiter)
            remaining = deadline - time.monotonic()
            if found is not None or remaining <= 0 or waiter.withdrawn or services.stopping.is_set():
                return found
            waiter.wait(remaining)
            if time.monotonic() >= deadline and not waiter.called:
                return None
            attempt = take
    # Nobody would hear the answer, and a task claimed for a worker that has left would wait for its lease.
    return None


def hold_for_people(
    services: Services, topics: list[str], seconds: float, look: Callable[[], _T | None]
) -> _T | None:
    """As ``hold``, but answers at once when too many people wait already, so that workers get through."""
    if seconds <= 0 or not services.permits.acquire(blocking=False):
        return look()
    try:
        return hold(services, topics, seconds, look, PEOPLE)
    finally:
        services.permits.release()


def preferred_wait() -> float:
    """Seconds that the caller's ``Prefer: wait=N`` (RFC 7240) allows, 0 without one."""
    for part in request.headers.get("Prefer", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() == "wait":
            return seconds_of(parse_options_header(value)[0].strip('"'), "Prefer: wait")
    return 0.0


def seconds_of(text: str, name: str) -> float:
    """A number of seconds to wait, cut to what we allow; raises a problem that names the parameter."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise ProblemError(ProblemCode.INVALID_FIELD, f"{name} must be seconds, not {text[:40]!r}.")
    return min(value, MAX_WAIT_SECONDS)
