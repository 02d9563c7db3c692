"""Starts the private API: the only place that reads its environment."""

from __future__ import annotations

import os
import sys

from flask import Flask

from serving.metrics_directory import use_fresh_directory

if __name__ == "__main__":
    # Before any import below brings prometheus_client along.
    use_fresh_directory()

import serving
from private_api.blobs.choice import prepare_blob_store
from private_api.bootstrap import bootstrap
from private_api.patience import StartError
from private_api.settings import Settings, SettingsError
from private_api.start import prepare_database
from serving.logs import configure_logging
from serving.server import serve


def main() -> None:
    """Serve until told to stop."""
    # Whatever is made here holds other people's data.
    os.umask(0o077)
    configure_logging("private_api")
    try:
        settings = Settings.from_environment(os.environ)
        prepare_database(settings)
        prepare_blob_store(settings)
    except (SettingsError, StartError) as error:
        sys.exit(f"private_api: {error}")

    def application() -> Flask:
        return bootstrap(settings, stopping=serving.stopping)

    serve(application, bind=settings.bind, threads=settings.threads, workers=settings.workers)


if __name__ == "__main__":
    main()
