"""The door of this room: `python -m setup COMMAND`, as the Makefile calls it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from setup import choices
from setup.bundle import release
from setup.checks import module_length, promtool, test_run
from setup.console import SetupError, detail, fail, say, step
from setup.embedded import demo, server
from setup.engine import dockerd, engine, leftovers
from setup.host import machine, ports
from setup.host.machine import Machine
from setup.images import base_image, busybox, example_images, part_images, service_images
from setup.model_test import model_test
from setup.places import Places
from setup.stack import backup, compose, stack, stack_rotation
from setup.swarm import leaving, membership, registry, start, status
from setup.swarm import proxy as swarm_proxy

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
    membership.require_none(places)
    stack.up(places)


def stop_stack(places: Places) -> None:
    """Stop the full stack; PURGE=1 deletes its data too."""
    stack.down(places, purge=choices.read(os.environ, "PURGE"))


def back_up(places: Places) -> None:
    """A backup of the full stack into the new directory that TO names."""
    backup.back_up(places, _directory("TO"))


def restore(places: Places) -> None:
    """The backup in the directory that FROM names, into an empty stack."""
    membership.require_none(places)
    backup.restore(places, _directory("FROM"))


def _directory(variable: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        raise SetupError(f"Name the backup's directory in {variable}=.")
    return Path(named).expanduser().resolve()


def make_bundle(places: Places) -> None:
    """One archive with every image and file of this release; OUT, SINCE, ALSO and EXAMPLE say the rest."""
    release.make(places, os.environ)


def rotate_secrets(places: Places) -> None:
    """New passwords for the full stack's services."""
    membership.require_none(places)
    stack_rotation.rotate(places)


def manage_proxy(places: Places) -> None:
    """Domains and certificates of the full stack, wherever it runs."""
    if places.swarm_settings.exists():
        swarm_proxy.manage(places)
    stack.manage_proxy(places)


def run_tests(places: Places) -> None:
    """Bring what the tests need (an engine, the images, a static busybox, promtool), then run them."""
    places.make()
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    busybox.ensure(this_machine)
    promtool.ensure(places, this_machine)
    compose.find(this_machine)
    _ensure_all_images(places, this_machine, host)
    environment = _test_environment(host)
    if chosen := shlex.split(os.environ.get("ARGS", "")):
        command = [sys.executable, "-m", "pytest", *chosen]
        os.execvpe(command[0], command, environment)  # noqa: S606 - Our own interpreter; nothing is left to do here.
    with_swarm = _can_make_machines(this_machine)
    if not with_swarm:
        say("→ The tests of the Swarm are left out: only root on Linux can make machines out of namespaces.")
    if status := test_run.run_all(places, environment, with_swarm=with_swarm):
        raise SetupError(f"Tests failed (pytest's exit status {status}); each lane's closing line is above.")


def run_swarm_tests(places: Places) -> None:
    """Bring what machines in namespaces need (an engine, all images), then run the tests of the Swarm."""
    places.make()
    this_machine = machine.look()
    if not _can_make_machines(this_machine):
        raise SetupError("The tests of the Swarm make machines out of namespaces: run this as root on Linux.")
    host = engine.ensure(places, this_machine, os.environ)
    busybox.ensure(this_machine)
    _ensure_all_images(places, this_machine, host)
    folder, chosen = f"tests/{test_run.SWARM_FOLDER}", shlex.split(os.environ.get("ARGS", ""))
    if not any(word.startswith("tests/") for word in chosen):
        # Options alone must not mean every test there is.
        chosen.append(folder)
    command = [sys.executable, "-m", "pytest", *chosen]
    os.execvpe(command[0], command, _test_environment(host))  # noqa: S606 - Our own interpreter, and the end.


def _can_make_machines(this_machine: Machine) -> bool:
    return this_machine.system == "Linux" and this_machine.is_root


def _ensure_all_images(places: Places, this_machine: Machine, host: str) -> None:
    client = engine.connect(host)
    try:
        base_image.ensure(client, places, this_machine, os.environ)
        part_images.ensure(client, places, os.environ)
        part_images.ensure_one(client, places, os.environ, registry.IMAGE)
        service_images.ensure(client, places, os.environ)
    finally:
        client.close()


def _test_environment(host: str) -> dict[str, str]:
    # The engine that was found, perhaps through a context, is the one that the tests must use.
    return {**os.environ, "DOCKER_HOST": host}


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
    removed = leftovers.remove(host, places.installation())
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
    "test-swarm": run_swarm_tests,
    "model-test": test_model,
    "stack-up": start_stack,
    "stack-down": stop_stack,
    "stack-status": stack.status,
    "backup": back_up,
    "restore": restore,
    "rotate-secrets": rotate_secrets,
    "proxy": manage_proxy,
    "swarm-init": start.init,
    "swarm-status": status.status,
    "swarm-leave": leaving.leave,
    "registry-up": registry.up,
    "bundle": make_bundle,
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
