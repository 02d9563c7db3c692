"""Answers of Docker's API that come as things happen: an exit, a log; and what a broken connection means.

``docker_engine.py`` enters, and nobody else. It knows HTTP and Docker's stream format, not the SDK.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
import urllib3

from consumer.metrics import count_engine_error
from consumer.outside.errors import EngineAwayError, EngineError, NotFoundError, RefusedError

# One byte for the stream, three of padding, four of length.
_FRAME_HEAD = struct.Struct(">xxxxL")


class ExitAnswer:
    """The answer to a wait, whose body comes at the exit."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    def result(self) -> int:
        """Block until the exit and return its code."""
        with transport_errors():
            return int(self._answer.json()["StatusCode"])

    def close(self) -> None:
        """Nobody waits for it any more."""
        self._answer.close()


class LogAnswer:
    """A container's log as the engine sends it: frames of 8 bytes of head (stream, length) and a piece.

    Source of the format: Docker's HTTP API, "Attach to a container", stream format. The SDK's own reader
    leaves its socket open when it is closed from another thread.
    """

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        raw = self._answer.raw
        try:
            with transport_errors():
                while len(head := raw.read(_FRAME_HEAD.size)) == _FRAME_HEAD.size:
                    yield raw.read(_FRAME_HEAD.unpack(head)[0])
        finally:
            self._answer.close()

    def close(self) -> None:
        """Make the reading thread see the end; it closes the connection then."""
        with suppress(OSError, ValueError, RuntimeError):
            self._answer.raw.shutdown()


@contextmanager
def transport_errors() -> Iterator[None]:
    """Let the exceptions of requests and urllib3, and of what cannot be understood, leave as ours."""
    try:
        yield
    except NotFoundError:
        # Often the answer that was hoped for.
        raise
    except EngineError as error:
        away = isinstance(error, EngineAwayError)
        count_engine_error("away" if away else "refused" if isinstance(error, RefusedError) else "nonsense")
        raise
    except (urllib3.exceptions.HTTPError, OSError) as error:
        count_engine_error("away")
        # All that requests raises is an OSError.
        raise EngineAwayError(f"the container engine does not answer: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        count_engine_error("nonsense")
        raise EngineError(f"the container engine's answer makes no sense: {error}") from error


def is_silence(error: BaseException | None) -> bool:
    """Whether an answer did not begin or go on in time."""
    while error is not None:
        if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError | TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
