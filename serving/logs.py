"""What the services write down: one JSON object a line on stderr, for people with `jq` and for machines.

``configure_logging`` is called once by each ``__main__``. A line carries what the code names in ``extra``,
but only the names listed here: a stray value, which might be a key, never reaches the log.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from gunicorn.glogging import Logger as GunicornLogger

from serving.request_ids import current_request_id

# What `extra` may add to a line.
EXTRA_FIELDS = (
    "action", "request_id", "task_id", "attempt", "lease_id", "model", "node", "slot", "key_id",
    "method", "path", "status", "duration_ms", "bytes", "client", "upstream", "reason_code",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line for ``record``, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line["request_id"] = current_request_id()
        line.update({name: getattr(record, name) for name in EXTRA_FIELDS if hasattr(record, name)})
        if line["request_id"] is None:
            del line["request_id"]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def configure_logging(service: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log record of this process to stderr (or ``stream``) as JSON lines of ``service``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)


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
