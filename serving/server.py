"""One way to run a WSGI application: gunicorn inside this process's child, with our worker and our limits.

Each service's ``__main__`` calls ``serve`` last; it returns only by ending the process. The application is
built in the process that serves it, so threads and connections made there never cross a fork.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from gunicorn.app.base import BaseApplication

from serving.gunicorn_log import JsonGunicornLogger
from serving.metrics import forget_process
from serving.wire import Patience
from serving.worker import Worker

WsgiApplication = Callable[..., Any]
_DESCRIPTORS = 16_384


def serve(  # noqa: PLR0913  # Each is a setting of its own.
    application_factory: Callable[[], WsgiApplication],
    *,
    bind: str,
    threads: int,
    workers: int = 1,
    connections: int = 4000,
    keepalive_seconds: int = 300,
    graceful_seconds: int = 20,
    patience: Patience | None = None,
    access_log: bool = False,
) -> NoReturn:
    """Serve what ``application_factory`` makes at ``bind`` (host:port or unix:path) until told to stop.

    Each of the ``workers`` is a process with so many ``threads`` and an application of its own.
    On SIGTERM no connection is accepted any more, ``serving.stopping`` is set, requests in flight have
    ``graceful_seconds`` to end, and the process exits. Idle connections are kept for ``keepalive_seconds``,
    which is long so that a relay's stay open.
    """
    worker = type("PatientWorker", (Worker,), {"patience": patience or Patience()})
    options: dict[str, Any] = {
        "bind": bind,
        "workers": workers,
        "worker_class": worker,
        "threads": threads,
        # gunicorn keeps idle connections only within what is left over from its threads.
        "worker_connections": max(connections, threads + 100),
        "keepalive": keepalive_seconds,
        "graceful_timeout": graceful_seconds,
        # The worker's main loop says each second that it lives; this bounds its silence, not a request.
        "timeout": 120,
        "preload_app": False,
        # Some file systems block for seconds; a heartbeat file must not.
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108  # Made with mkstemp.
        "limit_request_line": 8190,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        "logger_class": JsonGunicornLogger,
        "accesslog": "-" if access_log else None,
        "control_socket_disable": True,
        "child_exit": _forget_worker,
        # No peer is trusted to set the scheme, the script name or the like; header names with underscores
        # are dropped, so that X_Api_Key cannot pass for X-Api-Key.
        "forwarded_allow_ips": "",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        "header_map": "drop",
        "http_protocols": "h1",
        "http_parser": "python",
    }
    _allow_descriptors()
    _Server(application_factory, options).run()
    sys.exit(0)


def _forget_worker(_server: Any, worker: Any) -> None:
    forget_process(worker.pid)


def _allow_descriptors() -> None:
    # A relayed call holds two connections, and many systems start processes with 1,024 descriptors.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn publishes no types.
    def __init__(self, factory: Callable[[], WsgiApplication], options: dict[str, Any]) -> None:
        self._factory = factory
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> WsgiApplication:
        return self._factory()
