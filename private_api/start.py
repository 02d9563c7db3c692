"""What must be there before anything is served: the database, with the schema of this version.

``__main__`` enters, in the process that then starts the server: waiting here holds no server up, and what
cannot be mended ends the process with one line.
"""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError

from private_api.patience import StartError, wait_for
from private_api.settings import Settings
from private_api.store.database import AWAY_ERRORS, Database, reason_of
from private_api.store.schema import NewerSchemaError


class DatabaseAwayError(Exception):
    """The database cannot be asked; the message is what its driver said."""


def prepare_database(settings: Settings) -> None:
    """Wait for the database and bring its schema up to date; raises ``StartError``.

    A refused password or an unknown database is waited for as well: another container may be about to make
    them. What the server says of it is in the line that says for what we wait.
    """
    database = open_database(settings)

    def ask() -> None:
        try:
            database.check()
        except AWAY_ERRORS as error:
            raise DatabaseAwayError(reason_of(error)) from error

    try:
        # A file is there or cannot be: nobody else is going to make it.
        patience_seconds = settings.start_patience_seconds if database.is_remote else 0.0
        wait_for(database.name, ask, away=DatabaseAwayError, patience_seconds=patience_seconds)
        database.migrate()
    except NewerSchemaError as error:
        raise StartError(str(error)) from error
    except SQLAlchemyError as error:
        raise StartError(
            f"the schema of {database.name} could not be brought up to date, and is as it was:"
            f" {reason_of(error)}"
        ) from error
    finally:
        # The server is another process, forked from this one: it must not share our connections.
        database.engine.dispose()


def open_database(settings: Settings) -> Database:
    """The database that the settings name; nothing is connected yet."""
    return Database(
        settings.database_url,
        password=settings.database_password,
        connections=settings.database_connections,
    )
