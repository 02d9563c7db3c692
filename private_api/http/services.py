"""What every door needs to do its work; made once by ``private_api.bootstrap``."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from archives.limits import ZipLimits
from private_api.announcing.announcer import Announcer
from private_api.announcing.dead_letters import DeadLetterBox
from private_api.bell import Bell
from private_api.blobs.store import BlobStore
from private_api.crashpoints import Crashpoints
from private_api.decisions.retention import Retention
from private_api.fleet import Fleet
from private_api.lookout import Lookout
from private_api.settings import Settings
from private_api.store.database import Database

_EXTENSION = "inferenceserver"


@dataclass(frozen=True, kw_only=True)
class Services:
    """The adapters behind the doors."""

    settings: Settings
    database: Database
    blobs: BlobStore
    bell: Bell
    announcer: Announcer
    # Null where no broker is configured.
    dead_letters: DeadLetterBox | None
    crashpoints: Crashpoints
    zip_limits: ZipLimits
    # What is known of all nodes and models together.
    fleet: Fleet
    # Wakes held claims when there is work for them.
    lookout: Lookout
    # One permit for every long poll of a person that may be held at this moment.
    permits: threading.BoundedSemaphore
    # The same for workers that wait for a task.
    claim_permits: threading.BoundedSemaphore
    # Set when the process is told to stop: whoever waits answers at once.
    stopping: threading.Event

    @property
    def retention(self) -> Retention:
        """How long the data of ended tasks is kept where their model does not say."""
        return self.settings.retention


def attach(app: Flask, services: Services) -> None:
    """Let the doors of ``app`` find their services."""
    app.extensions[_EXTENSION] = services


def services() -> Services:
    """The services of the app that answers the present request."""
    return cast(Services, current_app.extensions[_EXTENSION])
