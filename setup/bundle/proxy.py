"""The proxy's management, from the setup image: a container like the one that Compose made for it, with our
input and output.

`docker-compose run` would do the same, but its first version needs the engine's client beside it.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.engine import container_streams, engine
from setup.host import machine
from setup.places import Places
from setup.stack import stack, stack_watch
from setup.stack.stack_settings import Chosen

# It ran at the start, with the image, the settings, the volume and the network that all its commands need.
_MODEL = "proxy-configuration"


def manage(places: Places) -> None:
    """Run the management command that is in ARGS; raises ``SetupError`` when it fails."""
    chosen = Chosen(stack.recall(places))
    if not chosen.values:
        raise SetupError("There is no stack here; `make stack-up` starts one.")
    client = engine.connect(engine.ensure(places, machine.look(), os.environ))
    try:
        models = stack_watch.containers(client, chosen.project, _MODEL)
        if not models:
            raise SetupError("The stack is not running; `make stack-up` starts it.")
        wanted = like(models[0].attrs, shlex.split(os.environ.get("ARGS", "")) or ["--help"])
        api: Any = client.api
        made = api.create_container_from_config(wanted)["Id"]
        try:
            # Unbuffered: nobody may hold a buffer's lock when this ends before its input does.
            with open(0, "rb", buffering=0, closefd=False) as source:
                status, said = container_streams.run_container(
                    client, made, source=source, target=sys.stdout.buffer
                )
        finally:
            api.remove_container(made, force=True, v=True)
    except (APIError, DockerException, RequestException) as error:
        raise SetupError(f"The proxy's management could not be run: {error}") from error
    finally:
        client.close()
    sys.stdout.flush()
    if status:
        raise SetupError(said or f"the command ended with {status}")
    sys.stderr.write(f"{said}\n" if said else "")


def like(attributes: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """What a container is made from that is as an inspected one, but for its command. Pure."""
    config, host = attributes["Config"], attributes["HostConfig"]
    networks: dict[str, Any] = {name: {} for name in attributes["NetworkSettings"]["Networks"]}
    return {
        **{name: config[name] for name in ("Image", "User", "Env", "Entrypoint", "WorkingDir")},
        "Cmd": command,
        # Whatever happens, taking the stack down finds it.
        "Labels": {
            stack_watch.PROJECT_LABEL: config["Labels"][stack_watch.PROJECT_LABEL],
            "com.docker.compose.oneoff": "True",
        },
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "HostConfig": {**host, "RestartPolicy": {"Name": "no"}},
        "NetworkingConfig": {"EndpointsConfig": networks},
    }
