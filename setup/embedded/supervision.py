"""What supervisord is told: its configuration, with one program per service. Pure.

A line at its top holds the fingerprint of the services' code, so that a server of older code is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("private_api", "public_api", "consumer")
# Whose change calls for a restart.
ROOMS = ("contracts", "archives", "serving", *SERVICES)
# The consumer lets its tasks end for 20 s before it hands them back; killing it sooner would waste them.
STOP_SECONDS = 35


@dataclass(frozen=True)
class ServerPlan:
    """All that decides how the server runs."""

    checkout: Path
    state: Path
    python: str
    socket: Path
    port: int
    private_port: int
    installation: str
    docker_host: str
    code: str
    as_root: bool
    # util-linux's setpriv, which has a service end when supervisord does; empty where there is none.
    setpriv: str = ""


def code_fingerprint(checkout: Path) -> str:
    """A hash of the services' code and of what it is installed with."""
    digest = hashlib.sha256()
    files = [path for room in ROOMS for path in sorted((checkout / room).rglob("*.py"))]
    for path in [*files, checkout / "requirements" / "embedded.txt"]:
        digest.update(path.relative_to(checkout).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def service_environments(plan: ServerPlan) -> dict[str, dict[str, str]]:
    """The settings of each service."""
    private_url = f"http://127.0.0.1:{plan.private_port}"
    return {
        "private_api": {
            "PRIVATE_API_BIND": f"127.0.0.1:{plan.private_port}",
            "DATABASE_URL": f"sqlite:///{plan.state / 'database.sqlite'}",
            "BLOB_DIRECTORY": str(plan.state / "blobs"),
            "KEY_DIRECTORY": str(plan.state),
        },
        "public_api": {
            "PUBLIC_API_BIND": f"127.0.0.1:{plan.port}",
            "PRIVATE_API_URL": private_url,
        },
        "consumer": {
            "PRIVATE_API_URL": private_url,
            "WORKER_KEY_FILE": str(plan.state / "worker.key"),
            "CONSUMER_DIRECTORY": str(plan.state / "consumer"),
            "INSTALLATION": plan.installation,
            "DOCKER_HOST": plan.docker_host,
        },
    }


def unusable_path(path: Path) -> str:
    """What in this path supervisord would misread, or nothing; it has no escape that always holds."""
    return next((mark for mark in (" ;", " #", "%", "\n") if mark in str(path)), "")


def render(plan: ServerPlan) -> str:
    """The text of supervisord.conf."""
    run, logs = plan.state / "run", plan.state / "logs"
    sections = {
        "unix_http_server": {"file": str(plan.socket), "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{plan.socket}"},
        "supervisord": {
            "logfile": str(logs / "supervisord.log"),
            "logfile_maxbytes": "5MB",
            "logfile_backups": "2",
            "pidfile": str(run / "supervisord.pid"),
            "directory": str(plan.checkout),
            "umask": "077",
            # Supervisor warns a root that did not say so.
            **({"user": "root"} if plan.as_root else {}),
        },
    }
    environments = service_environments(plan)
    for order, service in enumerate(SERVICES, start=1):
        sections[f"program:{service}"] = {
            "command": f"{_dying_with_us(plan)}{_quoted(plan.python)} -m {service}",
            "directory": str(plan.checkout),
            "environment": _environment(environments[service]),
            "priority": str(order),
            "autorestart": "true",
            "startsecs": "1",
            # Whatever keeps it from starting may pass; supervisor waits longer between tries.
            "startretries": "1000",
            "stopwaitsecs": str(STOP_SECONDS),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(logs / f"{service}.log"),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "3",
        }
    lines = [f"; Made by `make demo`; changes here are lost. Code: {plan.code}"]
    for name, values in sections.items():
        lines += ["", f"[{name}]"]
        lines += [f"{key}={value}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _dying_with_us(plan: ServerPlan) -> str:
    # A supervisord that is killed could not stop its services; they would hold the port, and run on unseen.
    return f"{_quoted(plan.setpriv)} --pdeathsig TERM -- " if plan.setpriv else ""


def _environment(values: Mapping[str, str]) -> str:
    return ",".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
