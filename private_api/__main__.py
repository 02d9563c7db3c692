"""Starts the private API: the only place that reads its environment."""

from __future__ import annotations

import os
import sys

from flask import Flask

import serving
from private_api.bootstrap import bootstrap
from private_api.settings import Settings, SettingsError
from serving.logs import configure_logging
from serving.server import serve


def main() -> None:
    """Serve until told to stop."""
    # Whatever is made here holds other people's data.
    os.umask(0o077)
    configure_logging("private_api")
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(f"private_api: {error}")

    def application() -> Flask:
        return bootstrap(settings, stopping=serving.stopping)

    serve(application, bind=settings.bind, threads=settings.threads)


if __name__ == "__main__":
    main()
