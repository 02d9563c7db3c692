"""The door of this room: `python -m setup COMMAND`, as the Makefile calls it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from setup import (
    backup,
    base_image,
    busybox,
    compose,
    demo,
    dockerd,
    engine,
    example_images,
    machine,
    model_test,
    module_length,
    part_images,
    ports,
    promtool,
    server,
    service_images,
    stack,
    stack_rotation,
    test_run,
)
from setup.console import SetupError, detail, fail, say, step
from setup.places import Places

DEFAULT_PORT = "8080"


def run_demo(places: Places) -> None:
    """The demo, on the port that PORT names."""
    demo.run(places, ports.read_port(os.environ.get("PORT") or DEFAULT_PORT))


def make_images(places: Places) -> None:
    """An engine, and every image that can be built here: template, example, the full stack's."""
    places.make()
    example, host = demo.prepare(places)
    client = engine.connect(host)
    try:
        slices = example_images.ensure_dicom(client, places, os.environ)
        built = part_images.ensure(client, places, os.environ) | service_images.ensure(
            client, places, os.environ
        )
    finally:
        client.close()
    for tag in (
        base_image.TAG,
        example_images.TEMPLATE_TAG,
        example.container_tag,
        example_images.DICOM_TAG,
        *built,
    ):
        detail(f"image {tag}")
    detail(f"weights {example.model_zip}")
    detail(f"sample slices {slices}")


def start_stack(places: Places) -> None:
    """The full stack: settings from the environment, then from what is remembered."""
    stack.up(places)


def stop_stack(places: Places) -> None:
    """Stop the full stack; PURGE=1 deletes its data too."""
    purge = os.environ.get("PURGE") or "0"
    if purge not in {"0", "1"}:
        raise SetupError(f"PURGE must be 0 or 1, not {purge!r}.")
    stack.down(places, purge=purge == "1")


def back_up(places: Places) -> None:
    """A backup of the full stack into the new directory that TO names."""
    backup.back_up(places, _directory("TO"))


def restore(places: Places) -> None:
    """The backup in the directory that FROM names, into an empty stack."""
    backup.restore(places, _directory("FROM"))


def _directory(variable: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        raise SetupError(f"Name the backup's directory in {variable}=.")
    return Path(named).expanduser().resolve()


def run_tests(places: Places) -> None:
    """Bring what the tests need (an engine, the images, a static busybox, promtool), then run them."""
    places.make()
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    busybox.ensure(this_machine)
    promtool.ensure(places, this_machine)
    compose.find(this_machine)
    client = engine.connect(host)
    try:
        base_image.ensure(client, places, this_machine, os.environ)
        part_images.ensure(client, places, os.environ)
        service_images.ensure(client, places, os.environ)
    finally:
        client.close()
    # The engine that was found, perhaps through a context, is the one that the tests must use.
    environment = {**os.environ, "DOCKER_HOST": host}
    if chosen := shlex.split(os.environ.get("ARGS", "")):
        command = [sys.executable, "-m", "pytest", *chosen]
        os.execvpe(command[0], command, environment)  # noqa: S606 - Our own interpreter; nothing is left to do here.
    if status := test_run.run_all(places, environment):
        raise SetupError(f"Tests failed (pytest's exit status {status}); each half's closing line is above.")


def test_model(places: Places) -> None:
    """Try a model before it is registered; DIR, SAMPLE and so on say which."""
    model_test.run(places, os.environ)


def stop_server(places: Places) -> None:
    """Stop the server and remove what it has on the engine; data and engine stay."""
    if not places.state.exists():
        say("There is no server here; nothing to stop.")
        return
    host = server.docker_host(places)
    if server.is_running(places):
        with step("Stopping the server (a running task may end first)"):
            server.stop_processes(places)
    elif not server.stop_processes(places):
        detail("the server was not running")
    if host is None or engine.ask(host).api_version is None:
        return
    removed = server.remove_leftovers(host, places.installation())
    detail(f"{removed} containers and volumes removed from the engine; the data stays in {places.state}")


def stop_engine(places: Places) -> None:
    """Stop the engine if it was started from here; the server first, which cannot work without one."""
    if dockerd.recall(places) is not None:
        stop_server(places)
    dockerd.stop(places)


def check_lengths(places: Places) -> None:
    """Refuse modules that are too long."""
    found = module_length.too_long(module_length.measure(places.checkout))
    if found:
        raise SetupError("\n".join(found))


COMMANDS: dict[str, Callable[[Places], None]] = {
    "demo": run_demo,
    "down": stop_server,
    "engine-down": stop_engine,
    "images": make_images,
    "test": run_tests,
    "model-test": test_model,
    "stack-up": start_stack,
    "stack-down": stop_stack,
    "stack-status": stack.status,
    "backup": back_up,
    "restore": restore,
    "rotate-secrets": stack_rotation.rotate,
    "proxy": stack.manage_proxy,
    "check-lengths": check_lengths,
}


def main(arguments: list[str]) -> int:
    """Run one command; an error that the reader can mend is one line, and exit code 1."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        fail(f"usage: python -m setup {'|'.join(COMMANDS)}")
        return 2
    os.chdir(Path(__file__).resolve().parent.parent)
    try:
        COMMANDS[arguments[0]](Places.from_environment(os.environ))
    except SetupError as error:
        fail(str(error))
        return 1
    except KeyboardInterrupt:
        fail(f"interrupted; `make {arguments[0]}` goes on where this stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
