"""Copy what the full stack holds into a directory, and bring such a copy into an empty stack.

The database is copied first and the blobs after it: blobs never change, are written before the row that names
them and deleted after it, so a copy has every blob that its rows count on, but for those whose time ran out
meanwhile. A directory is a backup once it has its manifest, which is written last and holds the SHA-256 of
each file.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import docker

from setup.console import SetupError, detail, say, step
from setup.engine import container_streams, engine
from setup.host import machine
from setup.images import service_images
from setup.places import Places
from setup.stack import stack, stack_watch
from setup.stack.stack_settings import Chosen

MANIFEST, DATABASE, BLOBS = "MANIFEST.json", "database.dump", "blobs.tar"
DATABASE_USER = ["--username=inferenceserver", "--host=/var/run/postgresql", "--no-password"]
_COPIES = ["python", "-m", "private_api.copies"]
HEALTHY_SECONDS = 120


def back_up(places: Places, target: Path) -> None:
    """Copy database and blobs of the running stack into ``target``, which must be new or empty."""
    with running_stack(places) as (client, chosen):
        if target.exists() and any(target.iterdir()):
            raise SetupError(f"{target} is not empty; name a new directory in TO=.")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = {}
        with step(f"Copying the database to {target / DATABASE}"):
            dump = [
                "pg_dump",
                "--format=custom",
                "--no-owner",
                "--no-privileges",
                *DATABASE_USER,
                "inferenceserver",
            ]
            with _written(target / DATABASE) as file:
                container_streams.run(client, container_id(client, chosen, "postgres"), dump, target=file)
            files[DATABASE] = _facts(target / DATABASE)
        with step(f"Copying the blobs to {target / BLOBS}"):
            with _written(target / BLOBS) as file:
                said = container_streams.run(
                    client, container_id(client, chosen, "private_api"), [*_COPIES, "export"], target=file
                )
            files[BLOBS] = _facts(target / BLOBS)
            outcome = _outcome(said)
            detail(f"{outcome['blobs']} blobs")
        if outcome["damaged"]:
            raise SetupError(
                f"{outcome['damaged']} blobs are not what the database says of them; the copy in {target} is "
                "not declared whole. Look after the store's disk first."
            )
        manifest = {
            "version": 1,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "server": service_images.read_version(places.checkout),
            "files": files,
        }
        with _written(target / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1).encode() + b"\n")
    say(f"The backup in {target} is whole. It holds people's data; keep it as you keep the server.")


def restore(places: Places, source: Path) -> None:
    """Bring a backup into the running stack, which must be empty; the stack's own keys stay valid."""
    with step(f"Checking the backup in {source}"):
        check(source)
    with running_stack(places) as (client, chosen):
        held = _outcome(
            container_streams.run(client, container_id(client, chosen, "private_api"), [*_COPIES, "count"])
        )
        if any(held.values()):
            raise SetupError(
                f"This stack holds data already ({held['tasks']} tasks, {held['models']} models). A backup "
                "goes into an empty one: `make stack-down PURGE=1` deletes it all, then `make stack-up`."
            )
        resting = [
            container
            for service in ("consumer", "public_api", "private_api")
            for container in stack_watch.containers(client, chosen.project, service)
        ]
        with step("Stopping the services that would use the data meanwhile"):
            for container in resting:
                container.stop(timeout=30)
        with step("Restoring the database"):
            load = [
                "pg_restore", "--clean", "--if-exists", "--no-owner", "--no-privileges", "--exit-on-error",
                "--single-transaction", "--dbname=inferenceserver", *DATABASE_USER,
            ]  # fmt: skip
            with (source / DATABASE).open("rb") as file:
                container_streams.run(client, container_id(client, chosen, "postgres"), load, source=file)
        with step("Starting the private API, which brings the database to its own version"):
            start(client, chosen, "private_api")
        with step("Restoring the blobs"):
            with (source / BLOBS).open("rb") as file:
                said = container_streams.run(
                    client, container_id(client, chosen, "private_api"), [*_COPIES, "import"], source=file
                )
            outcome = _outcome(said)
            detail(f"{outcome['blobs']} blobs")
        if outcome["damaged"]:
            raise SetupError(f"{outcome['damaged']} blobs are not what the database says of them.")
        if outcome["missing"]:
            detail(f"{outcome['missing']} blobs were not in the backup; their time ran out while it was made")
        for service in ("public_api", "consumer"):
            start(client, chosen, service)
        stack.wait_until_ready(places, chosen)
    say("The backup is restored. Tasks that had not ended run again.")


def check(source: Path) -> None:
    """See that a directory is a whole backup; raises ``SetupError``."""
    try:
        manifest = json.loads((source / MANIFEST).read_text())
        recorded: dict[str, dict[str, Any]] = manifest["files"]
        wanted = {name: recorded[name] for name in (DATABASE, BLOBS)}
    except FileNotFoundError as error:
        raise SetupError(f"{source} holds no whole backup: there is no {MANIFEST} in it.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{source / MANIFEST} cannot be read: {error}") from error
    if manifest.get("version") != 1:
        raise SetupError(f"{source} was made by a newer release; restore it with that one.")
    for name, facts in wanted.items():
        if not (source / name).is_file() or _facts(source / name) != facts:
            raise SetupError(f"{source / name} is not the file that the backup's manifest speaks of.")


@contextmanager
def running_stack(places: Places) -> Iterator[tuple[docker.DockerClient, Chosen]]:
    """The engine and the settings of a stack whose services are all well; raises ``SetupError`` otherwise."""
    remembered = stack.recall(places)
    if not remembered:
        raise SetupError("There is no stack here; `make stack-up` starts one.")
    chosen = Chosen(remembered)
    client = engine.connect(engine.ensure(places, machine.look(), os.environ))
    try:
        sights = stack_watch.look(client, chosen.project)
        if waiting := stack_watch.unready(sights, stack_watch.services(chosen)):
            how = ", ".join(f"{service} ({condition})" for service, condition in waiting.items())
            raise SetupError(f"The stack is not ready: {how}. `make stack-up` goes on with it.")
        yield client, chosen
    finally:
        client.close()


def container_id(client: docker.DockerClient, chosen: Chosen, service: str) -> str:
    """The id of a service's container."""
    return str(stack_watch.containers(client, chosen.project, service)[0].id)


def start(client: docker.DockerClient, chosen: Chosen, service: str) -> None:
    """Start a service's stopped container and wait until it is healthy; raises ``SetupError``."""
    for container in stack_watch.containers(client, chosen.project, service):
        container.start()
    deadline = time.monotonic() + HEALTHY_SECONDS
    while waiting := stack_watch.unready(stack_watch.look(client, chosen.project), [service]):
        if time.monotonic() > deadline:
            words = "\n".join(stack_watch.last_words(client, chosen.project, service))
            raise SetupError(f"{service} does not get ready ({waiting[service]}). Its last words:\n{words}")
        time.sleep(0.3)


def _outcome(said: str) -> dict[str, int]:
    # Its last line; a library may have had something to say before.
    return dict(json.loads(said.splitlines()[-1]))


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file for its owner only, on the disk once this is left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(descriptor)


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return {"size_bytes": path.stat().st_size, "sha256": digest.hexdigest()}
