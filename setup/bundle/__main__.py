"""The door of the setup image: `python -m setup.bundle COMMAND`, as the script
`inferenceserver` of a bundle calls it.

The commands are those of the Makefile that make sense where there is no checkout, and the client.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from setup import choices
from setup.bundle import proxy
from setup.console import SetupError, fail
from setup.places import Places
from setup.stack import backup, stack, stack_rotation


def _down(places: Places) -> None:
    stack.down(places, purge=choices.read(os.environ, "PURGE"))


COMMANDS: dict[str, Callable[[Places], None]] = {
    "stack-up": stack.up,
    "stack-down": _down,
    "stack-status": stack.status,
    # The script has made sure of both, and mounted them.
    "backup": lambda places: backup.back_up(places, Path(os.environ["TO"])),
    "restore": lambda places: backup.restore(places, Path(os.environ["FROM"])),
    "rotate-secrets": stack_rotation.rotate,
    "proxy": proxy.manage,
}


def client_environment(environment: Mapping[str, str], places: Places, port: str) -> dict[str, str]:
    """What tells the client of this server; what its caller named instead stays."""
    ours = {"INFER_SERVER": f"https://localhost:{port}"}
    if "INFER_SERVER" not in environment:
        ours["INFER_CA_CERT"] = str(places.root_certificate)
        if "INFER_KEY" not in environment:
            ours["INFER_KEY_FILE"] = str(places.admin_key)
    return {**ours, **environment}


def _become_client(places: Places, words: Sequence[str]) -> None:
    remembered = stack.recall(places)
    if not remembered:
        raise SetupError("There is no stack here; `make stack-up` starts one.")
    command = [sys.executable, "-m", "inference_server_client", *words]
    environment = client_environment(os.environ, places, remembered["HTTPS_PORT"])
    os.execve(command[0], command, environment)  # noqa: S606 - Our own interpreter; nothing is left to do here.


def main(arguments: list[str]) -> int:
    """Run one command; an error that the reader can mend is one line, and exit code 1."""
    command, *words = arguments or ["--help"]
    places = Places.from_environment(os.environ)
    try:
        if command == "infer":
            _become_client(places, words)
        elif command in COMMANDS and not words:
            COMMANDS[command](places)
        else:
            fail(f"usage: python -m setup.bundle {'|'.join(COMMANDS)}|infer …")
            return 2
    except SetupError as error:
        fail(str(error))
        return 1
    except KeyboardInterrupt:
        fail(f"interrupted; `make {command}` goes on where this stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
