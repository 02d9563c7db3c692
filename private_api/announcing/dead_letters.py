"""What no consumer could read, for an operator: look at it, and throw it away.

The doors enter, each time over a short connection of its own. Looking takes nothing out and changes nothing
but the mark that a message was delivered before.
"""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.announcements import DEAD_LETTER_QUEUE, BrokerAddress
from private_api.announcing.connection import visit

# What is shown of a body; announcements are far shorter.
SHOWN_BYTES = 2048


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One message; null where the broker did not note it: somebody sent it to the dead letters by hand."""

    received_at: datetime | None
    queue: str | None
    reason: str | None
    body: str
    body_encoding: str
    truncated: bool


class DeadLetterBox:
    """The queue of dead letters."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        # Two who look at once would each see what the other does not hold.
        self._one_at_a_time = threading.Lock()

    def peek(self, limit: int) -> tuple[list[DeadLetter], int]:
        """The oldest ``limit`` messages, and how many there are in all; raises ``BrokerAwayError``."""
        with self._one_at_a_time, visit(self._address) as channel:
            total = int(channel.queue_declare(DEAD_LETTER_QUEUE, passive=True).method.message_count or 0)
            found: list[DeadLetter] = []
            # Never acknowledged: the broker puts them back in their order when the channel closes.
            while len(found) < limit and (got := channel.basic_get(DEAD_LETTER_QUEUE))[0] is not None:
                _, properties, body = got
                found.append(dead_letter(properties.headers if properties else None, body or b""))
            return found, max(total, len(found))

    def count(self) -> int:
        """How many there are; raises ``BrokerAwayError``."""
        with visit(self._address) as channel:
            return int(channel.queue_declare(DEAD_LETTER_QUEUE, passive=True).method.message_count or 0)

    def purge(self) -> int:
        """Throw all of them away; returns how many there were; raises ``BrokerAwayError``."""
        with visit(self._address) as channel:
            return int(channel.queue_purge(DEAD_LETTER_QUEUE).method.message_count or 0)


def dead_letter(headers: Any, body: bytes) -> DeadLetter:
    """A message as an operator sees it; its ``x-death`` header says where it died, last death first."""
    deaths = headers.get("x-death") if isinstance(headers, dict) else None
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    when, queue, reason = death.get("time"), death.get("queue"), death.get("reason")
    shown, encoding = _readable(body[:SHOWN_BYTES], truncated=len(body) > SHOWN_BYTES)
    return DeadLetter(
        received_at=when if isinstance(when, datetime) else None,
        queue=queue if isinstance(queue, str) else None,
        reason=reason if isinstance(reason, str) else None,
        body=shown,
        body_encoding=encoding,
        truncated=len(body) > SHOWN_BYTES,
    )


def _readable(body: bytes, *, truncated: bool) -> tuple[str, str]:
    # A character of up to four bytes may have been cut at the end.
    for cut in range(4 if truncated else 1):
        try:
            return body[: len(body) - cut].decode(), "utf-8"
        except UnicodeDecodeError:
            continue
    return base64.b64encode(body).decode(), "base64"
