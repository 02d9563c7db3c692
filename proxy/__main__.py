"""Runs an operator's command: ``python -m proxy``. The only place here that reads the environment."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from proxy.commands import run
from proxy.settings import Settings, SettingsError


def main() -> NoReturn:
    """Do what the command line says; a wrong setting ends it with one line and status 2."""
    # Only Caddy is spoken to, on a private network: a proxy that the machine names for its containers would
    # be asked for a host that it cannot know.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"proxy: {error}\n")
        sys.exit(2)
    sys.exit(run(sys.argv[1:], settings))


if __name__ == "__main__":
    main()
