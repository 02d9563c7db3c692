"""Everything that can go wrong at the consumer's two outer walls, as one tree.

ConsumerError
├── SettingsError            a wrong setting; the process stops at start
├── EngineError              the container engine
│   ├── EngineAwayError      it cannot be reached, or broke off
│   ├── NotFoundError        it has no such container, image or volume
│   └── RefusedError         it understood and said no; ``status`` is its HTTP status
├── ServerError              the private API
│   ├── ServerAwayError      unreachable, too slow or in trouble: the same call may succeed later
│   ├── StaleLeaseError      the lease is over; nothing said about it counts any more
│   └── CallRefusedError     it will say no again; ``code`` is its problem code
│       └── KeyRefusedError  our key opens nothing: it was revoked, has expired or never was one
├── PreventedError           an attempt cannot start; carries the reason that the server records
└── AbandonedError           somebody asked to stop while we were waiting for something
"""

from __future__ import annotations

from contracts.reasons import ReasonCode


class ConsumerError(Exception):
    """Any failure that the consumer knows by name."""


class SettingsError(ConsumerError):
    """A setting is missing or wrong; the message names the variable."""


class EngineError(ConsumerError):
    """The container engine failed us."""


class EngineAwayError(EngineError):
    """The container engine cannot be reached or broke off in the middle of an answer."""


class NotFoundError(EngineError):
    """The container engine has no such thing."""


class RefusedError(EngineError):
    """The container engine said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ServerError(ConsumerError):
    """The private API failed us."""


class ServerAwayError(ServerError):
    """The private API is not there for the moment; the same call may succeed later."""


class StaleLeaseError(ServerError):
    """The lease is over; nothing said about it counts any more."""


class CallRefusedError(ServerError):
    """The private API will say no however often it is asked."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail


class KeyRefusedError(CallRefusedError):
    """The private API does not know our key, or not any more; its file held no other."""


class PreventedError(ConsumerError):
    """The attempt cannot start (or cannot end well), for a reason that has a code and a sentence."""

    def __init__(self, code: ReasonCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class AbandonedError(ConsumerError):
    """The work in hand is no longer wanted."""
