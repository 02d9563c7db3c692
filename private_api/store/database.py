"""The connection to the database: how transactions begin, and how its schema is brought up to date.

``read()`` sees committed data and takes no lock; ``write()`` is one transaction that rolls back unless it
ends well. A session is never held while bytes are streamed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import make_url

from private_api.store.tables import now_ms

# Any number will do, as long as every release uses the same.
_MIGRATION_LOCK = 4_201_742


class Database:
    """An engine with the two ways into it."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        # SQLite lets one writer in at a time and makes the others sleep and try again; threads of one
        # process do better to queue up here.
        self._writer: threading.Lock | nullcontext[None] = (
            threading.Lock() if self._is_sqlite else nullcontext()
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for questions: each statement sees what is committed when it runs."""
        with self.engine.connect() as connection:
            yield connection.execution_options(read_only=True)

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
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._one_at_a_time() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    @contextmanager
    def _one_at_a_time(self) -> Iterator[Connection]:
        if self._is_sqlite:
            file = make_url(str(self.engine.url)).database
            with FileLock(f"{file}.migration.lock"), self.engine.begin() as connection:
                yield connection
            return
        with self.engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
            yield connection


def current_ms(connection: Connection) -> int:
    """The database's clock, in milliseconds since 1970."""
    value: int = connection.execute(select(now_ms())).scalar_one()
    return value


def _create_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=16, max_overflow=16, hide_parameters=True)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    # Parameters are hidden from error messages: they are other people's logs and names.
    engine = create_engine(
        url, pool_size=16, max_overflow=48, hide_parameters=True, connect_args={"timeout": 20}
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        # The driver's own idea of when to begin is switched off, so that BEGIN below is ours.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # A task answered 202 must outlive a power cut too, not only a killed process.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # A transaction that reads and then writes would otherwise fail when another wrote in between.
        if not connection.get_execution_options().get("read_only"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
