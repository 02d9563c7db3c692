"""Install, start and stop the Docker engine of this machine, and remember whether it was we who started it.

Entered only when no engine answers, and by `make engine-down`, which stops nothing that was not started here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from setup.console import SetupError, detail, say, step
from setup.host.machine import Machine, apt_install
from setup.host.processes import is_same_process, start_time
from setup.places import Places

HOST = "unix:///var/run/docker.sock"
PID_FILE = Path("/var/run/docker.pid")
START_SECONDS = 60
STOP_SECONDS = 30


class How(StrEnum):
    """How the engine was started, which is how it must be stopped."""

    PROCESS = "process"
    SYSTEMD = "systemd"


@dataclass(frozen=True)
class Started:
    """An engine that we started; process id and start time (with its boot) name one process for ever."""

    how: How
    pid: int
    start_time: str


def is_installed() -> bool:
    """Whether the engine's program is here."""
    return find_program() is not None


def find_program() -> str | None:
    """The path of `dockerd`; looked for in the system's directories too, which a user's PATH may lack."""
    return shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/usr/local/sbin:/sbin")


def install(machine: Machine) -> None:
    """Install the distribution's engine."""
    say("No container engine answers here, and Docker is not installed.")
    # Recommended packages are left out; of those, the engine needs these two to make networks.
    packages = ["docker.io", "iptables", "ca-certificates"]
    apt_install(packages, f"the container engine of {machine.distribution}")


def start(places: Places, machine: Machine, answers: Callable[[str], bool]) -> str:
    """Start the engine, wait until it answers, and return its address."""
    log = places.logs / "dockerd.log"
    if machine.has_systemd:
        with step("Starting the container engine (systemctl start docker)"):
            _start_unit(places, answers, log)
        return HOST
    with step(f"Starting the container engine (dockerd; its log is {log})"):
        try:
            with _interrupt_deferred():
                process = _spawn(log)
                _remember(places, How.PROCESS, process.pid)
            _wait_until_answering(answers, lambda: process.poll() is None, log)
        except BaseException:
            # Whatever stopped the waiting, Ctrl-C included: nothing is left half-started.
            if recall(places) is not None:
                stop(places)
            raise
    return HOST


def _start_unit(places: Places, answers: Callable[[str], bool], log: Path) -> None:
    # An engine that runs, though it does not answer, is not started by this, and so never becomes ours.
    ran_before = _unit_pid() > 0
    try:
        _systemctl("start", "docker")
        if not ran_before:
            _remember(places, How.SYSTEMD, _unit_pid())
        _wait_until_answering(answers, lambda: True, log)
    except BaseException:
        if not ran_before:
            with suppress(SetupError):  # What stopped the start is the better message.
                _stop_unit()
            places.engine_record.unlink(missing_ok=True)
        raise


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a few quick lines that belong together."""
    came: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if came:
        raise KeyboardInterrupt


def _spawn(log: Path) -> subprocess.Popen[bytes]:
    program = find_program()
    if program is None:
        raise SetupError("dockerd is not installed where it was just found; run this again.")
    # A pid file that a killed engine left would stop the new one when its number is used again.
    if PID_FILE.exists() and not Path(f"/proc/{PID_FILE.read_text().strip()}").exists():
        PID_FILE.unlink()
    with log.open("ab") as output:
        return subprocess.Popen(
            [program, f"--host={HOST}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # It outlives this terminal, and Ctrl-C here is not for it.
            cwd="/",
        )


def _wait_until_answering(answers: Callable[[str], bool], alive: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(HOST):
        if not alive():
            raise SetupError(f"dockerd ended at once. {_advice(log)}")
        if time.monotonic() > deadline:
            raise SetupError(f"dockerd did not answer within {START_SECONDS} s. {_advice(log)}")
        time.sleep(0.3)


def _advice(log: Path) -> str:
    if not log.exists():
        return "Ask `journalctl -u docker` why."
    lines = log.read_text(errors="replace").splitlines()[-12:]
    hint = explain(lines)
    return "\n".join([f"{hint}The last lines of {log}:", *(f"    {line}" for line in lines)])


def explain(lines: list[str]) -> str:
    """A hint for the two things that commonly keep an engine from starting on a small machine."""
    text = "\n".join(lines).lower()
    if "iptables" in text or "nf_tables" in text or "ip_tables" in text:
        return "It could not set up its network: the kernel or the container around it lacks iptables. "
    if "overlay" in text or "graphdriver" in text or "snapshotter" in text:
        return "It could not set up its storage: the file system of /var/lib/docker must support overlay. "
    if "permission denied" in text or "operation not permitted" in text:
        return "It may not do what an engine must: inside a container it needs --privileged. "
    return ""


def remember_packaged_start(places: Places, machine: Machine) -> None:
    """Remember an engine that runs right after its installation: the package started it on our behalf."""
    pid = 0
    if machine.has_systemd:
        pid = _unit_pid()
    else:
        with suppress(OSError, ValueError):
            written = int(PID_FILE.read_text())
            # A pid file may outlive its engine, and the number may be somebody else's by now.
            if Path(f"/proc/{written}/comm").read_text().strip() == "dockerd":
                pid = written
    if pid > 0:
        _remember(places, How.SYSTEMD if machine.has_systemd else How.PROCESS, pid)


def _remember(places: Places, how: How, pid: int) -> None:
    started = Started(how, pid, start_time(pid) or "")
    places.engine_record.write_text(json.dumps(asdict(started)) + "\n")


def recall(places: Places) -> Started | None:
    """What was remembered, if an engine was started from here."""
    try:
        record = json.loads(places.engine_record.read_text())
        return Started(How(record["how"]), int(record["pid"]), str(record["start_time"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def stop(places: Places) -> bool:
    """Stop the engine if it was started from here and still runs; says which. True when one was stopped."""
    started = recall(places)
    if started is None:
        say("No container engine was started from here; nothing to stop.")
        return False
    if not is_same_process(started.pid, started.start_time) or (
        started.how is How.SYSTEMD and started.pid != _unit_pid()
    ):
        detail("the container engine that was started from here has ended already; one that runs is not ours")
        places.engine_record.unlink()
        return False
    if started.how is How.SYSTEMD:
        with step("Stopping the container engine (systemctl stop docker)"):
            _stop_unit()
    else:
        with step(f"Stopping the container engine (dockerd, process {started.pid})"):
            _terminate(started)
    places.engine_record.unlink()
    return True


def _terminate(started: Started) -> None:
    os.kill(started.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_same_process(started.pid, started.start_time):
        if time.monotonic() > deadline:
            raise SetupError(
                f"dockerd (process {started.pid}) did not end within {STOP_SECONDS} s of SIGTERM."
            )
        time.sleep(0.1)


def _stop_unit() -> None:
    # The socket unit would start it again at the next question.
    _systemctl("stop", "docker.socket", "docker.service")


def _unit_pid() -> int:
    """The process that systemd has running as the engine; 0 when none."""
    asked = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "docker.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    pid = asked.stdout.strip().removeprefix("MainPID=")
    return int(pid) if pid.isdigit() else 0


def _systemctl(verb: str, *units: str) -> None:
    done = subprocess.run(["systemctl", verb, *units], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(f"systemctl {verb} {' '.join(units)} failed: {done.stderr.strip()}")
