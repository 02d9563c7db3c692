"""Builds the private API from its settings; tests come in here too."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError

from archives.limits import ZipLimits
from contracts.messages import SlotKind
from private_api.announcing.announcer import Announcer, BrokerAnnouncer, NoAnnouncer
from private_api.announcing.dead_letters import DeadLetterBox
from private_api.bell import Bell
from private_api.blobs.choice import open_blob_store
from private_api.crashpoints import Crashpoints
from private_api.fleet import Fleet
from private_api.http import (
    claims,
    dead_letters,
    health,
    keys,
    leases,
    models,
    nodes,
    openapi,
    submissions,
    task_logs,
    tasks,
)
from private_api.http.authentication import name_keys
from private_api.http.metrics import show_metrics
from private_api.http.outages import answer_outages
from private_api.http.services import Services, attach
from private_api.http.strangeness import refuse_strange_requests
from private_api.lookout import Due, Lookout
from private_api.metrics import count_connections
from private_api.settings import Settings
from private_api.start import open_database
from private_api.store.database import Database
from private_api.store.keys import Role, add_key, is_known, new_secret
from private_api.store.next_task import Slot, count_due_by_model
from private_api.upkeep import start_upkeep
from serving.http_metrics import count_requests
from serving.problems import answer_with_problems
from serving.request_ids import carry_request_ids

# Tasks of one model for which waiting slots are woken at once.
_MOST_CALLED = 100
# Made at first start, so that the first admin and the first worker need nobody to let them in.
_FIRST_KEYS = {"admin.key": Role.ADMIN, "worker.key": Role.WORKER}


def bootstrap(settings: Settings, *, stopping: threading.Event, upkeep: bool = True) -> Flask:
    """The whole service behind one WSGI application."""
    database = open_database(settings)
    count_connections(database.engine)
    database.migrate()
    ensure_first_keys(database, settings.key_directory)
    crashpoints = Crashpoints(settings.crash_at, settings.crash_marker)
    services = Services(
        settings=settings,
        database=database,
        blobs=open_blob_store(settings),
        bell=Bell(),
        announcer=_announcer(settings, database, crashpoints, stopping),
        dead_letters=DeadLetterBox(settings.broker) if settings.broker else None,
        crashpoints=crashpoints,
        zip_limits=ZipLimits(
            max_entries=settings.max_zip_entries, max_unpacked_bytes=settings.max_unpacked_bytes
        ),
        fleet=Fleet(database),
        lookout=Lookout(partial(_due, database), stopping),
        permits=threading.BoundedSemaphore(settings.held_requests),
        claim_permits=threading.BoundedSemaphore(settings.held_claims),
        stopping=stopping,
    )
    app = Flask("private_api", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's own provider has it.
    # Slashes are never merged nor added by a redirect: what is not a route is a 404.
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    attach(app, services)
    answer_with_problems(app)
    answer_outages(app)
    carry_request_ids(app)
    count_requests(app)
    name_keys(app)
    refuse_strange_requests(app)
    for room in (
        submissions,
        tasks,
        task_logs,
        models,
        keys,
        dead_letters,
        claims,
        leases,
        nodes,
        health,
        openapi,
    ):
        app.register_blueprint(room.blueprint)
    show_metrics(app, services)
    if upkeep:
        start_upkeep(services)
    return app


def _due(database: Database, kind: SlotKind) -> list[Due]:
    with database.read() as connection:
        found = count_due_by_model(connection, kind, _MOST_CALLED)
    return [Due(count=number, fits=partial(_takes, kind, model)) for model, number in found]


def _takes(kind: SlotKind, model: Row[Any], slot: Slot) -> bool:
    return slot.takes(kind, model)


def _announcer(
    settings: Settings, database: Database, crashpoints: Crashpoints, stopping: threading.Event
) -> Announcer:
    if settings.broker is None:
        return NoAnnouncer()
    announcer = BrokerAnnouncer(settings.broker, database, crashpoints, stopping=stopping)
    announcer.start()
    return announcer


def ensure_first_keys(database: Database, directory: Path) -> None:
    """Make the first keys' files where they are missing, and let the database know every one of them.

    A file that is there is never overwritten; a key that was revoked stays revoked.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, role in _FIRST_KEYS.items():
        file = directory / name
        _write_once(file, new_secret() + "\n")
        secret = file.read_text().strip()
        # Another process may be at the same point; its row will do.
        with contextlib.suppress(IntegrityError), database.write() as connection:
            if not is_known(connection, secret):
                add_key(connection, name=f"first {role.value}", role=role, secret=secret)


def _write_once(file: Path, text: str) -> None:
    if file.exists():
        return
    # Complete under another name first (with mode 0600): a process killed here leaves no empty key behind.
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
        # When another process was first, its key counts.
        with contextlib.suppress(FileExistsError):
            os.link(draft.name, file)
