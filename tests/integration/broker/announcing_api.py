"""The private API with a broker, in this process, entered through its WSGI application."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from private_api.announcing.announcer import BrokerAnnouncer, BrokerState
from private_api.bootstrap import bootstrap
from private_api.settings import Settings
from tests.integration.private_api.callers import Api
from tests.rig.polling import eventually


@contextmanager
def private_api(directory: Path, broker_url: str, password: str = "") -> Iterator[Api]:
    """A private API of its own, without the upkeep that does not concern announcements."""
    settings = Settings(
        database_url=f"sqlite:///{directory}/db.sqlite",
        blob_directory=directory / "blobs",
        key_directory=directory,
        min_free_bytes=0,
        broker_url=broker_url,
        broker_password=password,
    )
    stopping = threading.Event()
    app = bootstrap(settings, stopping=stopping, upkeep=False)
    services = app.extensions["inferenceserver"]
    keys = [(directory / f"{role}.key").read_text().strip() for role in ("admin", "worker")]
    try:
        yield Api(app, services, directory, *keys)
    finally:
        stopping.set()
        names = {"publisher", "catch_up"}
        eventually(
            lambda: not names & {thread.name for thread in threading.enumerate()},
            15,
            "the threads have ended",
        )
        services.database.engine.dispose()


def announcer(api: Api) -> BrokerAnnouncer:
    found = api.services.announcer
    assert isinstance(found, BrokerAnnouncer)
    return found


def wait_for_broker(api: Api) -> None:
    eventually(lambda: api.services.announcer.state() is BrokerState.OK, 20, "the broker is reached")
