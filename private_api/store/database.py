"""The connection to the database: how transactions begin, and what it means when it does not answer.

``read()`` sees committed data and takes no lock; ``write()`` is one transaction that rolls back unless it
ends well. A session is never held while bytes are streamed.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sqlalchemy import URL, Connection, Engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from private_api.store.postgresql import postgresql_engine, without_transaction
from private_api.store.schema import migrate
from private_api.store.sqlite import sqlite_engine
from private_api.store.tables import now_ms

# SQLAlchemy's names for "cannot be asked now", whatever lies behind: no server, no free connection, a lock
# that nobody lets go, a transaction that the server chose to end.
AWAY_ERRORS = (OperationalError, InterfaceError, PoolTimeoutError)
_POSTGRESQL_NAMES = {"postgres", "postgresql", "postgresql+psycopg2"}
_POSTGRESQL_DISK_FULL = "53100"


class DatabaseUrlError(ValueError):
    """The database's address cannot be used; the message never repeats it, since it may hold a password."""


class Database:
    """An engine with the two ways into it."""

    def __init__(self, url: str, *, password: str = "", connections: int = 32) -> None:
        self.engine = _create_engine(database_url(url, password), connections)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        # SQLite lets one writer in at a time and makes the others sleep and try again; threads of one
        # process do better to queue up here.
        self._writer: threading.Lock | nullcontext[None] = (
            threading.Lock() if self._is_sqlite else nullcontext()
        )

    @property
    def name(self) -> str:
        """What people may be told of where it is: its file, or its server and name."""
        url = self.engine.url
        if self._is_sqlite:
            return f"the database {url.database}"
        port = f":{url.port}" if url.port else ""
        return f"the database {url.database} at {url.host or 'the local socket'}{port}"

    @property
    def is_remote(self) -> bool:
        """Whether another process serves it, which may be away for a while."""
        return not self._is_sqlite

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for questions: each statement sees what is committed when it runs."""
        with self.engine.connect() as connection:
            if self._is_sqlite:
                yield connection.execution_options(read_only=True)
            else:
                with without_transaction(connection):
                    yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed when the block ends well and rolled back when it does not."""
        with self._writer, self.engine.begin() as connection:
            yield connection

    def check(self) -> None:
        """Ask the database anything; raises whatever the driver raises when it does not answer."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def migrate(self) -> None:
        """Bring the schema up to date; safe when several processes start at once."""
        migrate(self.engine)


def current_ms(connection: Connection) -> int:
    """The database's clock, in milliseconds since 1970."""
    value: int = connection.execute(select(now_ms())).scalar_one()
    return value


def is_away(error: BaseException) -> bool:
    """Whether the database could not be asked, so that the same may well succeed later."""
    if isinstance(error, AWAY_ERRORS):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_full(error: BaseException) -> bool:
    """Whether the database's disk has no room left."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(cause, "pgcode", None) == _POSTGRESQL_DISK_FULL


def reason_of(error: BaseException) -> str:
    """What the driver said, in one line, without the statement."""
    if isinstance(error, PoolTimeoutError):
        return "all connections to it were in use for too long"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__


def database_url(text_url: str, password: str = "") -> URL:
    """The address with the password in its place; raises ``DatabaseUrlError``."""
    try:
        url = make_url(text_url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUrlError("is no address such as postgresql+psycopg2://user@host/database") from error
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:":
            raise DatabaseUrlError("must name a file, such as sqlite:////var/lib/inferenceserver/db.sqlite")
        return url
    if url.drivername not in _POSTGRESQL_NAMES:
        raise DatabaseUrlError("must begin with sqlite:/// or postgresql+psycopg2://")
    if not url.database:
        raise DatabaseUrlError("must name a database, as in postgresql+psycopg2://user@host/database")
    url = url.set(drivername="postgresql+psycopg2")
    return url.set(password=password) if password else url


def _create_engine(url: URL, connections: int) -> Engine:
    if url.drivername == "sqlite":
        return sqlite_engine(url)
    return postgresql_engine(url, connections=connections)
