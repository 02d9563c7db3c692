"""SQLite as this service speaks to it: write-ahead logging, and transactions that begin as we say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

# SQLite's own wait for another process's write; within this process writers queue up before it.
_BUSY_SECONDS = 20


def sqlite_engine(url: URL) -> Engine:
    """An engine on the file that ``url`` names; its directory is made."""
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    # Parameters are hidden from error messages: they are other people's logs and names.
    engine = create_engine(
        url, pool_size=16, max_overflow=48, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS}
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
