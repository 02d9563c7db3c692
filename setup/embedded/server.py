"""Start, wait for, and stop the embedded server: three services that supervisord keeps alive.

A server that runs with the same settings and the same code is left as it is; any other is stopped and started
anew. Its data in `.state/` is never touched here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xmlrpc.client
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from supervisor.xmlrpc import SupervisorTransport

from setup.console import SetupError, detail, step
from setup.embedded import supervision
from setup.host import ports
from setup.host.processes import start_time
from setup.places import Places

READY_SECONDS = 60
# make's own variables would make a `make` inside a service believe that it is a child of this one.
NOT_INHERITED = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PORT")


def check_place(places: Places, port: int) -> None:
    """Refuse a port that somebody else holds, or a path that cannot be used, before anything is built."""
    for path in (places.checkout, places.state):
        if mark := supervision.unusable_path(path):
            raise SetupError(f"The path {path} holds {mark!r}, which supervisord cannot read. Rename it.")
    if not (is_running(places) and _remembered(places).get("port") == port):
        ports.require_free(port)


def ensure(places: Places, port: int, docker_host: str) -> str:
    """The address of a server that is ready; started, or started anew, where it must be."""
    running = is_running(places)
    remembered = _remembered(places)
    private = remembered.get("private_port")
    if not (running and remembered.get("port") == port and private):
        private = ports.choose_private(port, private, ports.is_free)
    plan = supervision.ServerPlan(
        checkout=places.checkout,
        state=places.state,
        python=sys.executable,
        socket=places.supervisor_socket(),
        port=port,
        private_port=private,
        installation=places.installation(),
        docker_host=docker_host,
        code=supervision.code_fingerprint(places.checkout),
        as_root=os.geteuid() == 0,
        setpriv=shutil.which("setpriv") or "",
    )
    text = supervision.render(plan)
    config = places.run / "supervisord.conf"
    address = f"http://127.0.0.1:{port}"
    if running and config.exists() and config.read_text() == text:
        detail(f"the server runs already on {address}")
        wait_until_ready(places, address, started_now=False)
    else:
        if running:
            with step("Stopping the server, which runs with other settings or older code"):
                stop_processes(places)
        with step(f"Starting the server on {address} (logs in {places.logs})"):
            _start(places, plan, text)
        wait_until_ready(places, address, started_now=True)
    return address


def _start(places: Places, plan: supervision.ServerPlan, text: str) -> None:
    ports.require_free(plan.port)
    config = places.run / "supervisord.conf"
    config.write_text(text)
    _settings_file(places).write_text(
        json.dumps({"port": plan.port, "private_port": plan.private_port, "docker_host": plan.docker_host})
        + "\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    started = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        env=environment,
        cwd=places.checkout,
        start_new_session=True,  # Ctrl-C in this terminal is not for the server.
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode != 0:
        raise SetupError(f"supervisord did not start: {(started.stderr or started.stdout).strip()}")


def wait_until_ready(places: Places, address: str, *, started_now: bool) -> None:
    """Wait for `/readyz`; when it does not come, show why, and stop the server if this run started it."""
    deadline = time.monotonic() + READY_SECONDS
    answer = "no answer"
    session = requests.Session()
    session.trust_env = False  # Loopback is never reached through a proxy.
    while time.monotonic() < deadline:
        try:
            response = session.get(f"{address}/readyz", timeout=5)
            if response.status_code == requests.codes.ok:
                return
            answer = f"{response.status_code}: {response.text.strip()[:300]}"
        except requests.RequestException as error:
            answer = type(error).__name__
        time.sleep(0.1)
    report = "\n".join(line for service in supervision.SERVICES for line in last_words(places, service))
    if started_now:
        stop_processes(places)
        outcome = "and was stopped."
    else:
        outcome = "and goes on running, as it did before this; `make down` stops it."
    raise SetupError(f"The server was not ready within {READY_SECONDS} s ({answer}) {outcome}\n{report}")


def last_words(places: Places, service: str) -> list[str]:
    """The end of a service's log, with its path."""
    log = places.logs / f"{service}.log"
    last = log.read_text(errors="replace").splitlines()[-6:] if log.exists() else []
    return [f"  {log}:", *(f"    {line[:300]}" for line in last)]


def is_running(places: Places) -> bool:
    """Whether our supervisord answers."""
    try:
        return bool(_rpc(places).supervisor.getState())
    except (OSError, xmlrpc.client.Error):
        return False


def _rpc(places: Places) -> Any:
    transport = SupervisorTransport(None, None, f"unix://{places.supervisor_socket()}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)


def stop_processes(places: Places) -> bool:
    """Stop supervisord and its services, and wait until they are gone; whether there was anything to stop."""
    pid = _supervisord_pid(places)
    if pid is None:
        return False
    started = start_time(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)  # Supervisor's own order to stop all its programs and end.
    deadline = time.monotonic() + supervision.STOP_SECONDS + 10
    while start_time(pid) == started and started is not None:
        if time.monotonic() > deadline:
            raise SetupError(f"The server (supervisord, process {pid}) did not end; see {places.logs}.")
        time.sleep(0.05)
    return True


def _supervisord_pid(places: Places) -> int | None:
    try:
        pid = int((places.run / "supervisord.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes() if Path("/proc/self").exists() else b""
    except (FileNotFoundError, ValueError):
        return None
    # The number in the file may belong to somebody else by now.
    ours = os.fsencode(places.run / "supervisord.conf") in words or (not words and is_running(places))
    return pid if ours else None


def _settings_file(places: Places) -> Path:
    return places.run / "server.json"


def docker_host(places: Places) -> str | None:
    """The engine that the server last used."""
    host = _remembered(places).get("docker_host")
    return str(host) if host else None


def _remembered(places: Places) -> dict[str, Any]:
    try:
        return dict(json.loads(_settings_file(places).read_text()))
    except (FileNotFoundError, ValueError):
        return {}
