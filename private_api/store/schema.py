"""Brings the schema up to date, one process at a time, and stops before one that a newer program made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, Engine, text

from private_api.store.postgresql import without_deadlines

# Any number will do, as long as every release uses the same.
_MIGRATION_LOCK = 4_201_742


class NewerSchemaError(Exception):
    """The database was made by a newer version of this service; upgrade the service or restore a backup."""


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to ``revision``, all of it or nothing; raises ``NewerSchemaError``."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with _one_at_a_time(engine) as connection:
        _refuse_newer(connection, ScriptDirectory.from_config(config))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    unknown = set(MigrationContext.configure(connection).get_current_heads()) - known
    if unknown:
        raise NewerSchemaError(
            f"the database was made by a newer version of this service (its schema is"
            f" {', '.join(sorted(unknown))}, this version knows up to {scripts.get_current_head()});"
            f" upgrade the service or restore a backup"
        )


@contextmanager
def _one_at_a_time(engine: Engine) -> Iterator[Connection]:
    if engine.dialect.name == "sqlite":
        with FileLock(f"{engine.url.database}.migration.lock"), engine.begin() as connection:
            yield connection
        return
    with without_deadlines(), engine.begin() as connection:
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
        yield connection
