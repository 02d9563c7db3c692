"""Waiting, at the start, for what the service stands on: said when it begins, now and then, and when it ends.

``__main__`` enters before anything is served. What cannot mend itself (a wrong key, a wrong name) is not
waited for: whoever asks raises ``StartError``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 1.0
_SAY_AGAIN_SECONDS = 15.0


class StartError(Exception):
    """The service cannot start; the message is one line that tells its operator why."""


def wait_for(
    what: str,
    attempt: Callable[[], None],
    *,
    away: type[Exception] | tuple[type[Exception], ...],
    patience_seconds: float,
) -> None:
    """Call ``attempt`` until it does not raise ``away``; raises ``StartError`` when patience is used up."""
    began = time.monotonic()
    said_at: float | None = None
    while True:
        try:
            attempt()
        except away as error:
            reason = " ".join(str(error).split())
            now = time.monotonic()
            if now - began + _ASK_AGAIN_SECONDS > patience_seconds:
                raise StartError(f"{what} was not there within {patience_seconds:g} s: {reason}") from error
            if said_at is None or now - said_at >= _SAY_AGAIN_SECONDS:
                _log.warning("waiting for %s: %s", what, reason, extra={"action": "waiting"})
                said_at = now
            time.sleep(_ASK_AGAIN_SECONDS)
        else:
            if said_at is not None:
                waited_seconds = round(time.monotonic() - began, 1)
                _log.info("%s is there after %s s", what, waited_seconds, extra={"action": "waited"})
            return
