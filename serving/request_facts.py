"""What is learnt of a request while it is answered: for its metrics and its line in the access log.

Whoever learns something writes it here; `http_metrics` and `gunicorn_log` read it. Nothing is decided by it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, cast

_NAME = "inferenceserver.facts"


@dataclass
class RequestFacts:
    """One request. ``route`` is its template with ``{}`` for each id, "none" where nothing is there."""

    route: str = "none"
    # Whether its answer was held on purpose, so that its duration says nothing about us.
    held: bool = False
    key_id: str | None = None
    task_id: str | None = None
    received_bytes: int = 0
    # Whether it came with a header by which proxies say for whom they ask, be it true or not.
    forwarded: bool = False
    began: float = field(default_factory=time.monotonic)


def facts_of(environ: dict[str, Any]) -> RequestFacts:
    """The facts of the request in ``environ``; new at the first call."""
    return cast(RequestFacts, environ.setdefault(_NAME, RequestFacts()))
