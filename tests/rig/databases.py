"""Databases of a test's own on the session's PostgreSQL server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy.engine import make_url

from tests.rig.parts import Part

# Sorted as people sort, so that nothing can come to depend on the order of bytes by luck.
_LIKE_A_USERS = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"


def create_database(part: Part) -> str:
    """The address of a new, empty database, its password included."""
    name = f"test_{secrets.token_hex(6)}"
    with session(part.url) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}" {_LIKE_A_USERS}')
    return make_url(part.url).set(database=name).render_as_string(hide_password=False)


def empty_tables(url: str, names: list[str]) -> None:
    """Delete every row of ``names``, referring tables first; whoever is still connected is sent away."""
    with session(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        cursor.execute("; ".join(f'DELETE FROM "{name}"' for name in names))


@contextmanager
def session(url: str) -> Iterator[psycopg2.extensions.connection]:
    """A connection past all of our own code; every statement is committed at once."""
    parsed = make_url(url)
    connection = psycopg2.connect(
        host=parsed.host,
        port=parsed.port,
        user=parsed.username,
        password=parsed.password,
        dbname=parsed.database,
        connect_timeout=10,
    )
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()
