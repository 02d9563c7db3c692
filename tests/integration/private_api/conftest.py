"""The private API on SQLite with a directory and on PostgreSQL with an S3 store, all of them real.

It is entered through its WSGI application.
"""

import shutil
import sqlite3
import threading
from contextlib import closing

import pytest

from private_api.bootstrap import bootstrap
from private_api.settings import Settings
from private_api.store.database import Database
from private_api.store.tables import metadata
from tests.integration.private_api.buckets import make_bucket, s3_settings
from tests.integration.private_api.callers import Api
from tests.rig.databases import create_database, empty_tables


@pytest.fixture(scope="session")
def migrated_postgres(request):
    """The address of a database with the present schema; whoever uses it empties its tables first."""
    url = create_database(request.getfixturevalue("postgres"))
    database = Database(url)
    database.migrate()
    database.engine.dispose()
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory):
    """A database file with the present schema, to be copied."""
    folder = tmp_path_factory.mktemp("sqlite")
    database = Database(f"sqlite:///{folder}/made.sqlite")
    database.migrate()
    # All of it in one file, whatever SQLite keeps beside the first.
    with closing(sqlite3.connect(folder / "made.sqlite")) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / "db.sqlite"),))
    database.engine.dispose()
    return folder / "db.sqlite"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """The address of a database without a row."""
    if request.param == "sqlite":
        # Copied, since making the tables takes longer than most tests.
        shutil.copyfile(request.getfixturevalue("migrated_sqlite"), tmp_path / "db.sqlite")
        return f"sqlite:///{tmp_path}/db.sqlite"
    url = request.getfixturevalue("migrated_postgres")
    # Emptying costs a few milliseconds, another database a hundred.
    empty_tables(url, [table.name for table in reversed(metadata.sorted_tables)])
    return url


@pytest.fixture
def blob_settings(request, tmp_path, database_url):
    """A directory beside SQLite, as in the embedded server; a bucket beside PostgreSQL, as in the stack."""
    if database_url.startswith("sqlite"):
        return {"blob_directory": tmp_path / "blobs"}
    settings = s3_settings(request.getfixturevalue("s3"))
    make_bucket(settings)
    return settings


@pytest.fixture
def settings(tmp_path, database_url, blob_settings):
    return Settings(
        database_url=database_url,
        **blob_settings,
        key_directory=tmp_path,
        min_free_bytes=0,
        max_input_bytes=300_000,
        max_zip_entries=100,
    )


@pytest.fixture
def api(settings, tmp_path):
    stopping = threading.Event()
    app = bootstrap(settings, stopping=stopping, upkeep=False)
    services = app.extensions["inferenceserver"]
    yield Api(
        app,
        services,
        tmp_path,
        (tmp_path / "admin.key").read_text().strip(),
        (tmp_path / "worker.key").read_text().strip(),
    )
    stopping.set()
    services.database.engine.dispose()
