"""The private API on a real database and a real directory, entered through its WSGI application."""

import threading

import pytest

from private_api.bootstrap import bootstrap
from private_api.settings import Settings
from tests.integration.private_api.callers import Api


@pytest.fixture
def settings(tmp_path):
    return Settings(
        database_url=f"sqlite:///{tmp_path}/db.sqlite",
        blob_directory=tmp_path / "blobs",
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
