"""``python -m consumer join``: a machine anywhere, at home or in another clinic, works for a server.

It only turns what was said on the command line into the settings of ``python -m consumer``, after a look at
whether server, certificate and key are well. The machine needs a container engine and a way out, and no port.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from consumer.bootstrap import build_server
from consumer.node.settings import Settings
from consumer.outside.errors import SettingsError
from consumer.outside.greeting import greet

_EXAMPLES = """\
examples:
  python -m consumer join --url https://inference.example.org --key-file worker.key
  python -m consumer join --url https://10.1.2.3:8443 --ca root.crt --key-file worker.key --cpu-slots 2
  python -m consumer join --url https://inference.example.org --key-file worker.key --gpus none \\
      --name anna-at-home --label site=home --label disk=ssd

An admin makes the key:  infer keys add anna-at-home --role worker --model MODEL --key-out worker.key
Ctrl-C stops it: what runs may end for DRAIN_SECONDS (20), and goes back to the queue then.
All other settings are environment variables, as docs/settings.md lists them.
"""
# What each option is called as a setting.
_VARIABLES = {
    "url": "INFERENCE_SERVER_URL",
    "key_file": "WORKER_KEY_FILE",
    "ca": "INFERENCE_SERVER_CA",
    "name": "NODE_NAME",
    "cpu_slots": "CPU_SLOTS",
    "gpus": "GPUS",
    "labels": "NODE_LABELS",
    "directory": "CONSUMER_DIRECTORY",
}
_OPTIONS = {variable: f"--{option.rstrip('s') if option == 'labels' else option}".replace("_", "-")
            for option, variable in _VARIABLES.items()}  # fmt: skip
# Whoever sits at a terminal wants to know soon that the engine does not run.
_ENGINE_SECONDS = "10"


def settings_of(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that the command line adds to ``environment``, after a greeting to the server.

    Raises ``SettingsError`` in words of the command line; ends the process as ``argparse`` does.
    """
    chosen = _parser().parse_args(arguments)
    given = {
        _VARIABLES[option]: _text(value)
        for option, value in vars(chosen).items()
        if option in _VARIABLES and value is not None
    }
    if not given.get("CONSUMER_DIRECTORY") and not environment.get("CONSUMER_DIRECTORY", "").strip():
        given["CONSUMER_DIRECTORY"] = str(_own_directory(environment))
    if not environment.get("START_PATIENCE_SECONDS"):
        given["START_PATIENCE_SECONDS"] = _ENGINE_SECONDS
    try:
        settings = Settings.from_environment({**environment, **given})
        if not settings.worker_key_file.is_file():
            raise SettingsError(f"WORKER_KEY_FILE: there is no file {settings.worker_key_file}.")
        server = build_server(settings, patience_seconds=0.0)
    except SettingsError as error:
        raise SettingsError(_in_options(str(error), given)) from error
    url = settings.private_api_url
    own = greet(server, url, ca=settings.server_ca, key_file=settings.worker_key_file)
    models = "all models" if own.models is None else ", ".join(own.models)
    print(f"{url} knows the key as {own.name}, for tasks of {models}. Ctrl-C stops.", flush=True)
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m consumer join",
        description="Take tasks from a server over HTTPS and run them on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="the server's address, as its users know it")
    parser.add_argument("--key-file", required=True, metavar="FILE", help="a file with the key of a worker")
    parser.add_argument("--ca", metavar="FILE", help="trust the authorities in this PEM file, and no others")
    parser.add_argument("--name", help="what the server calls this machine; otherwise its host name")
    parser.add_argument("--cpu-slots", type=int, metavar="N", help="tasks at once without a GPU")
    parser.add_argument("--gpus", metavar="auto|none|UUID,…", help="the GPUs to use, each with a slot (auto)")
    parser.add_argument(
        "--label",
        action="append",
        dest="labels",
        metavar="NAME=VALUE",
        help="what a model may ask of a machine by name; may be repeated",
    )
    parser.add_argument("--directory", metavar="DIR", help="where data of tasks lies while they run")
    return parser


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def _own_directory(environment: Mapping[str, str]) -> Path:
    """Where programs keep such things by the XDG Base Directory Specification."""
    state, home = Path(environment.get("XDG_STATE_HOME", "")), Path(environment.get("HOME", ""))
    if not state.is_absolute():
        state = home / ".local/state"
    if not state.is_absolute():
        raise SettingsError("--directory is needed: there is no home directory.")
    return state / "inferenceserver"


def _in_options(message: str, given: Mapping[str, str]) -> str:
    """``message`` with the names that whoever typed the options knows."""
    for variable in given:
        if variable in _OPTIONS:
            message = message.replace(variable, _OPTIONS[variable])
    return message
