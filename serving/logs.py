"""What all services write down: one JSON object a line on stderr, for people with `jq` and for machines.

``configure_logging`` is called once by each ``__main__``. A line carries what the code names in ``extra``,
but only the names listed here: a stray value, which might be a key, never reaches the log.

Standard library only: a node that just runs models has no web framework installed.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

# What `extra` may add to a line.
EXTRA_FIELDS = (
    "action", "request_id", "task_id", "attempt", "lease_id", "model", "node", "slot", "key_id",
    "method", "path", "status", "duration_ms", "bytes", "client", "upstream", "reason_code", "blob",
    "outcome", "durations", "decision", "workspace", "slots",
)  # fmt: skip

# The request that this thread is serving; `serving.request_ids` sets it.
request_id_in_log: ContextVar[str | None] = ContextVar("request_id", default=None)


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
        line["request_id"] = request_id_in_log.get()
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
