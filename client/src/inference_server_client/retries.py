"""Whether and when a request is sent again: pure decisions; the transport performs them.

A request that creates something carries an Idempotency-Key, so sending it again creates nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from inference_server_client.errors import ApiError, InferenceServerError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with jitter, bounded in count, in time, or in both.

    The defaults give a call about eight seconds in all: long enough for a service to be restarted,
    short enough for a person at a prompt.
    """

    attempts: int | None = 5
    give_up_after_seconds: float | None = None
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 10.0
    # A server that asks for more than this is better heard than silently obeyed.
    longest_retry_after_seconds: float = 60.0

    def delay_after(
        self, error: InferenceServerError, *, attempt: int, elapsed_seconds: float, jitter: float
    ) -> float | None:
        """Seconds until the next attempt, or None to give up.

        ``attempt`` counts from 1; ``jitter`` in 0..1 takes up to half of the delay away, so that many
        clients do not come back at the same moment.
        """
        if not is_worth_repeating(error) or (self.attempts is not None and attempt >= self.attempts):
            return None
        # The exponent is capped because a float has an end.
        grown = self.first_delay_seconds * 2.0 ** min(attempt - 1, 30)
        delay = min(grown, self.longest_delay_seconds) * (1 - jitter / 2)
        if error.retry_after_seconds is not None:
            if error.retry_after_seconds > self.longest_retry_after_seconds:
                return None
            delay = max(delay, error.retry_after_seconds)
        if self.give_up_after_seconds is not None and elapsed_seconds + delay > self.give_up_after_seconds:
            return None
        return delay


# For somebody who waits for a task: it runs on without us, so an outage of minutes is worth sitting out.
PATIENT = RetryPolicy(attempts=None, give_up_after_seconds=600.0)


def is_worth_repeating(error: InferenceServerError) -> bool:
    """Whether the same request may succeed soon by itself.

    A 409 tells of the state of a task or model; whether to wait for that to change is the caller's decision.
    """
    return error.retryable and not (isinstance(error, ApiError) and error.status == 409)


def parse_retry_after(text: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds asked for by a Retry-After header (RFC 9110, 10.2.3), or None when there is none to read."""
    if not text:
        return None
    if text.strip().isascii() and text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
