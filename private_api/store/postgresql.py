"""PostgreSQL as this service speaks to it: a bounded number of connections, and no wait without an end.

``Database`` enters. psycopg2 by itself waits for ever for a server that has frozen, so every wait of its
connections goes through a function of ours that has a deadline; a connection that misses it is closed.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import extensions
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

# A server that is there accepts a connection in milliseconds; one that restarts refuses it at once.
_CONNECT_SECONDS = 5.0
# Every statement of ours finds an index or a batch. The server ends one that does not sooner than we give up,
# so that its own message tells which it was.
_STATEMENT_SECONDS = 10.0
_SERVER_STATEMENT_MS = 8_000
# No transaction of ours holds a row for longer than it takes to speak to the database.
_LOCK_MS = 5_000
_IDLE_IN_TRANSACTION_MS = 30_000
# A request that finds all connections taken waits this long for one.
_POOL_SECONDS = 10.0

_OPTIONS = (
    # Whatever the server's own default is: conditional updates and row locks are written for this one.
    "-c default_transaction_isolation=read\\ committed"
    f" -c statement_timeout={_SERVER_STATEMENT_MS} -c lock_timeout={_LOCK_MS}"
    f" -c idle_in_transaction_session_timeout={_IDLE_IN_TRANSACTION_MS}"
    # Whatever we ask for in order there is an index in that order for. The planner would rather sort what its
    # statistics take for nothing: a queue of which they know nothing yet, a minute after it has become long.
    " -c enable_sort=off -c enable_incremental_sort=off"
)

# A connection that has lain ready for longer is asked before it is used.
_IDLE_SECONDS = 5.0
_USED_AT = "used_at"

_patience = threading.local()


def postgresql_engine(url: URL, *, connections: int) -> Engine:
    """An engine that holds at most ``connections`` connections, and finds out by itself that one is dead."""
    extensions.set_wait_callback(_wait)
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        # The fewest that are needed stay busy; the rest may be closed by whoever cleans up idle ones.
        pool_use_lifo=True,
        # Parameters are hidden from error messages: they are other people's logs and names.
        hide_parameters=True,
        connect_args={
            "application_name": "inferenceserver",
            "options": _OPTIONS,
            # A peer that vanished without a word is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        },
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", _refuse_dead)
    return engine


def _note_use(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_USED_AT] = time.monotonic()


def _refuse_dead(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that may have died while it lay ready; when it has, all are made anew.

    SQLAlchemy would ask each time, which costs a request as much as a question of its own.
    """
    used_at = record.info.get(_USED_AT)
    if used_at is None:
        return
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    # A server that ends a connection says so, or at least closes it: there is something to read.
    if not poller.poll(0) and time.monotonic() - used_at < _IDLE_SECONDS:
        return
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except psycopg2.Error as error:
        raise InvalidatePoolError from error


@contextmanager
def without_transaction(connection: Connection) -> Iterator[None]:
    """Let each statement stand alone: questions then cost no BEGIN and no ROLLBACK.

    Switched at the driver, since SQLAlchemy's own switch asks the server for it, twice.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.autocommit = True
    try:
        yield
    finally:
        if not driver.closed:
            driver.autocommit = False


@contextmanager
def without_deadlines() -> Iterator[None]:
    """Let this thread's statements take as long as they take: a migration may rewrite a large table."""
    _patience.unlimited = True
    try:
        yield
    finally:
        _patience.unlimited = False


def _wait(connection: Any) -> None:
    """Wait until the connection has done what it was asked; raises when it is silent for too long."""
    connecting = connection.status == extensions.STATUS_SETUP
    limit_seconds = _CONNECT_SECONDS if connecting else _STATEMENT_SECONDS
    if not connecting and getattr(_patience, "unlimited", False):
        limit_seconds = float("inf")
    deadline = time.monotonic() + limit_seconds
    while (wanted := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(
            connection.fileno(), select.POLLIN if wanted == extensions.POLL_READ else select.POLLOUT
        )
        # One step at a time, since a limit may be infinite and poll() takes whole milliseconds.
        step_ms = min(deadline - time.monotonic(), 60.0) * 1000
        if not poller.poll(max(step_ms, 0)) and time.monotonic() >= deadline:
            # Raised in here it makes psycopg2 close the connection, whose state nobody knows.
            raise psycopg2.OperationalError(f"the database server did not answer within {limit_seconds:g} s")
