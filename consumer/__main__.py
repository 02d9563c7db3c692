"""``python -m consumer``: the parent of all slots; ``--slot NAME`` is one slot; ``--check`` tries the
engine only.

The only place that reads the environment. A wrong setting or an unfit engine ends it with one line.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from filelock import FileLock, Timeout

from consumer.bootstrap import build_station, slot_directory
from consumer.node.engine_check import check_engine
from consumer.node.settings import Settings
from consumer.node.slots import Slot, slots_of_machine
from consumer.outside.docker_engine import DockerEngine
from consumer.outside.errors import ConsumerError, SettingsError
from consumer.outside.labels import Owner
from consumer.slot.cleaning import remove_other_slots
from consumer.slot.worker import SlotWorker
from consumer.supervisor import supervise
from serving.logs import configure_logging

_log = logging.getLogger("consumer")

WRONG_SETTING, UNFIT_ENGINE = 2, 3


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` ask for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m consumer", description="Runs the tasks of this node.")
    parser.add_argument("--check", action="store_true", help="only find out whether the engine can be used")
    parser.add_argument("--slot", help="be the process of one slot")
    parser.add_argument("--gpu", help="with --slot: the UUID of its GPU")
    parser.add_argument("--supervised", action="store_true", help="with --slot: end when standard input does")
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
        settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if chosen.check:
            return _check(settings)
        configure_logging("consumer")
        if chosen.slot:
            return _run_slot(settings, Slot(name=chosen.slot, gpu=chosen.gpu), supervised=chosen.supervised)
        return _run_parent(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return WRONG_SETTING
    except ConsumerError as error:
        print(error, file=sys.stderr)
        return UNFIT_ENGINE


def _check(settings: Settings) -> int:
    facts = check_engine(DockerEngine(settings.docker_host), settings.directory, _parent_owner(settings))
    api = ".".join(map(str, facts.api_version))
    print(f"The container engine can be used: version {facts.version}, API {api}, {facts.architecture}.")
    return 0


def _run_parent(settings: Settings) -> int:
    slots = slots_of_machine(settings.cpu_slots, settings.gpus)
    if not slots:
        raise SettingsError("CPU_SLOTS is 0 and GPUS names none: there would be nothing to run tasks on.")
    engine = DockerEngine(settings.docker_host)
    check_engine(engine, settings.directory, _parent_owner(settings))
    remove_other_slots(engine, _parent_owner(settings), settings.directory / "slots", {s.name for s in slots})
    _log.info("starting", extra={"action": "consumer_began", "slots": [slot.name for slot in slots]})
    supervise(slots, settings.drain_seconds)
    return 0


def _run_slot(settings: Settings, slot: Slot, *, supervised: bool) -> int:
    if supervised:
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    station = build_station(settings, slot)
    # An earlier life that is still ending must be gone before this one adopts what it leaves.
    lock = FileLock(slot_directory(settings, slot) / "lock")
    with suppress(Timeout):
        lock.acquire(timeout=1)
    if not lock.is_locked:
        _log.warning("another process has this slot", extra={"action": "slot_waits", "slot": slot.name})
    with lock:
        worker = SlotWorker(station)

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
