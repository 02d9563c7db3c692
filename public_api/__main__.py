"""Runs the public API: ``python -m public_api``. The only place here that reads the environment."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from serving.metrics_directory import use_fresh_directory

if __name__ == "__main__":
    # Before any import below brings prometheus_client along.
    use_fresh_directory()

from public_api.bootstrap import create_app
from public_api.settings import Settings, SettingsError
from serving.logs import configure_logging
from serving.server import serve
from serving.wire import Patience


def main() -> NoReturn:
    """Serve until told to stop; a wrong setting ends it with one line and status 2."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"public_api: {error}\n")
        sys.exit(2)
    configure_logging("public_api")
    serve(
        lambda: create_app(settings),
        bind=settings.bind,
        threads=settings.threads,
        workers=settings.workers,
        patience=Patience(stall_seconds=settings.stall_seconds),
        access_log=settings.access_log,
    )


if __name__ == "__main__":
    main()
