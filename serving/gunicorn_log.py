"""Leads gunicorn's own messages and its access log into ours; the server names it to gunicorn."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from serving.http_metrics import count_bytes, known_method

# Machines ask these every few seconds; their lines would bury the others.
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class JsonGunicornLogger(GunicornLogger):  # type: ignore[misc]  # gunicorn publishes no types.
    """Hands gunicorn's own messages to our log; writes a line for each request where that is asked for."""

    def setup(self, cfg: Any) -> None:
        """Let the root logger's handler write; gunicorn's own handlers stay out."""
        self.cfg = cfg
        self._access_log_enabled = cfg.accesslog is not None
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)
        self.access_log.handlers.clear()
        self.access_log.propagate = True
        self.access_log.setLevel(logging.INFO)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """One line for an answered request, by its route.

        Its path and query are left out: people put keys there by mistake.
        """
        del req
        sent, status = getattr(resp, "sent", None) or 0, getattr(resp, "status_code", None)
        facts = count_bytes(environ, sent)
        if not self._access_log_enabled or (facts.route in _PROBES and status in {200, 304}):
            return
        line = {
            "action": "request_answered",
            "method": known_method(environ.get("REQUEST_METHOD", "")),
            "route": facts.route,
            "status": status,
            "bytes": sent,
            "received_bytes": facts.received_bytes,
            "duration_ms": round(request_time.total_seconds() * 1000, 1),
            "client": environ.get("REMOTE_ADDR"),
        }
        known = {"key_id": facts.key_id, "task_id": facts.task_id}
        self.access_log.info("answered", extra=line | {name: value for name, value in known.items() if value})

    def reopen_files(self) -> None:
        """There are none: stderr belongs to whoever started the process."""
