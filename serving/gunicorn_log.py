"""Leads gunicorn's own messages and its access log into ours; the server names it to gunicorn."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger


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
        """One line for an answered request. The query is left out: people put secrets there by mistake."""
        if not self._access_log_enabled:
            return
        self.access_log.info(
            "answered",
            extra={
                "method": environ.get("REQUEST_METHOD"),
                "path": req.path,
                "status": getattr(resp, "status_code", None),
                "bytes": getattr(resp, "sent", None),
                "duration_ms": round(request_time.total_seconds() * 1000, 1),
                "client": environ.get("REMOTE_ADDR"),
            },
        )

    def reopen_files(self) -> None:
        """There are none: stderr belongs to whoever started the process."""
