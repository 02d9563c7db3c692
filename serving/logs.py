"""What all services write down: one JSON object a line on stderr, for people with `jq` and for machines.

``configure_logging`` is called once by each ``__main__``. A line carries what the code names in ``extra``,
and what the thread that writes it works on (``working_on``), but only the names listed here: a stray value,
which might be a key, never reaches the log.

Standard library only: a node that just runs models has no web framework installed.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from functools import partial
from typing import Any, TextIO

# What `extra` may add to a line.
EXTRA_FIELDS = (
    "action", "request_id", "task_id", "attempt", "lease_id", "model", "node", "slot", "key_id",
    "method", "path", "route", "status", "duration_ms", "bytes", "received_bytes", "client", "upstream",
    "reason_code", "blob", "outcome", "durations", "decision", "workspace", "slots",
)  # fmt: skip

# The request that this thread is serving; `serving.request_ids` sets it.
request_id_in_log: ContextVar[str | None] = ContextVar("request_id", default=None)
# What else this thread works on.
_work_in_log: ContextVar[Mapping[str, Any]] = ContextVar("work")


@contextmanager
def working_on(*, request_id: str | None = None, **fields: Any) -> Iterator[None]:
    """Log under these fields for a while; ``request_id`` stays what it is where it is null."""
    request = request_id_in_log.set(request_id or request_id_in_log.get())
    work = _work_in_log.set({**_work_in_log.get({}), **fields})
    try:
        yield
    finally:
        _work_in_log.reset(work)
        request_id_in_log.reset(request)


def same_work(target: Callable[[], None]) -> Callable[[], None]:
    """``target`` for a new thread, which else would not know what it works on."""
    return partial(copy_context().run, target)


class JsonFormatter(logging.Formatter):
    """One record as one line of JSON."""

    def __init__(self, service: str, **fields: str) -> None:
        super().__init__()
        self._service = service
        self._fields = fields

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
        known = {**self._fields, **_work_in_log.get({}), **vars(record)}
        line.update({name: known[name] for name in EXTRA_FIELDS if name in known})
        if line["request_id"] is None:
            del line["request_id"]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


def configure_logging(
    service: str, *, level: int = logging.INFO, stream: TextIO | None = None, **fields: str
) -> None:
    """Send every log record of this process to stderr (or ``stream``) as JSON lines of ``service``.

    ``fields``: what every line of this process carries, its node for instance.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service, **fields))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
