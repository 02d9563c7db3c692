"""``python -m consumer``: the parent of all slots; ``--slot NAME`` is one slot; ``--check`` tries the
engine only; ``join`` asks for the settings of a worker outside on the command line.

The only place that reads the environment. A wrong setting or an unfit engine ends it with one line.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from types import FrameType

from filelock import FileLock, Timeout

from serving.metrics_directory import use_fresh_directory

if __name__ == "__main__" and os.environ.get("METRICS_BIND") and not {"--slot", "--check"} & set(sys.argv):
    # The parent makes it for all slots, before any import below brings prometheus_client along.
    use_fresh_directory()

from consumer.bootstrap import (
    build_reporter,
    build_room,
    build_station,
    gpus_of_node,
    host_paths,
    reach_engine,
    settled,
    slot_directory,
)
from consumer.join import settings_of
from consumer.metrics import serve_metrics
from consumer.node.engine_check import check_engine
from consumer.node.room import Room
from consumer.node.settings import Settings
from consumer.node.slots import Slot, slots_of_machine
from consumer.outside.docker_engine import DockerEngine
from consumer.outside.errors import ConsumerError, SettingsError
from consumer.outside.labels import Owner
from consumer.slot.cleaning import remove_other_slots
from consumer.slot.sources import source_of
from consumer.slot.worker import SlotWorker
from consumer.supervisor import start_process, supervise
from serving.logs import configure_logging

_log = logging.getLogger("consumer")

WRONG_SETTING, UNFIT_ENGINE = 2, 3
# Between two looks at what nobody uses any more.
_TIDY_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` ask for and return the exit status."""
    if arguments[:1] == ["join"]:
        try:
            os.environ.update(settings_of(arguments[1:], os.environ))
        except SettingsError as error:
            print(error, file=sys.stderr)
            return WRONG_SETTING
        arguments = []
    parser = argparse.ArgumentParser(
        prog="python -m consumer",
        description="Runs the tasks of this node. Its settings are environment variables.",
        epilog="For a machine outside the server's own network: python -m consumer join --help",
    )
    parser.add_argument("--check", action="store_true", help="only find out whether the engine can be used")
    parser.add_argument("--slot", help="be the process of one slot")
    parser.add_argument("--gpu", help="with --slot: the UUID of its GPU")
    parser.add_argument("--supervised", action="store_true", help="with --slot: end when standard input does")
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
        _make_directory(settings)
        if chosen.check:
            return _check(settings)
        configure_logging("consumer", node=settings.node, **({"slot": chosen.slot} if chosen.slot else {}))
        # The first process of a container is sent nothing that it has no handler for: not even a SIGTERM.
        signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(128 + signal.SIGTERM))
        if chosen.slot:
            return _run_slot(settings, Slot(name=chosen.slot, gpu=chosen.gpu), supervised=chosen.supervised)
        return _run_parent(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTING
    except ConsumerError as error:
        print(error, file=sys.stderr)
        return UNFIT_ENGINE


def _make_directory(settings: Settings) -> None:
    try:
        settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(
            f"CONSUMER_DIRECTORY: {settings.directory} cannot be made ({error.strerror}); in a container, "
            "mount a named volume there."
        ) from error


def _check(settings: Settings) -> int:
    engine = DockerEngine(settings.docker_host)
    settings = Settings.from_environment(settled(os.environ, engine))
    facts = check_engine(engine, host_paths(settings), _parent_owner(settings))
    api = ".".join(map(str, facts.api_version))
    print(f"The container engine can be used: version {facts.version}, API {api}, {facts.architecture}.")
    return 0


def _run_parent(settings: Settings) -> int:
    if settings.gpus is not None:
        _plan(settings, settings.gpus)
    engine = reach_engine(settings)
    # The slots' processes are told, so that all are of one mind.
    environment = settled(os.environ, engine)
    settings = Settings.from_environment(environment)
    configure_logging("consumer", node=settings.node)
    check_engine(engine, host_paths(settings), _parent_owner(settings))
    gpus = gpus_of_node(settings, engine)
    slots = _plan(settings, tuple(gpu.uuid for gpu in gpus))
    remove_other_slots(engine, _parent_owner(settings), settings.directory / "slots", {s.name for s in slots})
    _log.info("starting", extra={"action": "consumer_began", "slots": [slot.name for slot in slots]})
    _show_metrics(settings, slots)
    room = build_room(settings, engine)
    threading.Thread(target=_keep_tidy, args=(room,), name="tidy", daemon=True).start()
    reporter, stock = build_reporter(settings, engine, room, slots, gpus)
    reporter.start()
    stock.start()
    start = partial(start_process, environment=environment)
    supervise(slots, settings.leave_seconds, start, reporter.may_begin.is_set)
    stock.leave()
    reporter.leave()
    return 0


def _plan(settings: Settings, gpus: tuple[str, ...]) -> list[Slot]:
    slots = slots_of_machine(settings.cpu_slots, gpus)
    if not slots:
        raise SettingsError("CPU_SLOTS is 0 and there is no GPU: there would be nothing to run tasks on.")
    return slots


def _show_metrics(settings: Settings, slots: list[Slot]) -> None:
    if settings.metrics_bind is None:
        return
    host, port = settings.metrics_bind
    try:
        serve_metrics(host, port, settings.directory, Counter(slot.kind for slot in slots))
    except OSError as error:
        raise SettingsError(
            f"METRICS_BIND: nothing can listen at {host}:{port} ({error.strerror})."
        ) from error


def _keep_tidy(room: Room) -> None:
    """Have the node's caches looked at once a minute; without an end."""
    while True:
        try:
            room.tidy()
        except (ConsumerError, OSError) as error:
            _log.warning("tidying failed: %s", error, extra={"action": "tidying_failed"})
        except Exception:  # noqa: BLE001 - The thread must live: without it the disk would fill up.
            _log.exception("tidying failed unexpectedly", extra={"action": "tidying_failed"})
        time.sleep(_TIDY_SECONDS)


def _run_slot(settings: Settings, slot: Slot, *, supervised: bool) -> int:
    if supervised:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    else:
        settings = Settings.from_environment(settled(os.environ, DockerEngine(settings.docker_host)))
    station = build_station(settings, slot)
    # An earlier life that is still ending must be gone before this one adopts what it leaves.
    lock = FileLock(slot_directory(settings, slot) / "lock")
    with suppress(Timeout):
        lock.acquire(timeout=1)
    if not lock.is_locked:
        _log.warning("another process has this slot", extra={"action": "slot_waits", "slot": slot.name})
    with lock:
        worker = SlotWorker(station, source_of(station))

        def drain(_signal: int, _frame: FrameType | None) -> None:
            # Not in the handler itself: it interrupts whatever the main thread holds.
            threading.Thread(target=worker.drain, name="drain", daemon=True).start()

        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGINT, drain)
        worker.run()
    return 0


def _end_with_parent() -> None:
    """Wait for the pipe's other end to close. The parent is gone then, and with it whoever would stop us."""
    # Not ``sys.stdin``: the interpreter cannot end while a thread holds the lock of its buffer.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _parent_owner(settings: Settings) -> Owner:
    return Owner(installation=settings.installation, node=settings.node, slot="check")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
