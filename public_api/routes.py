"""The allow-list: every request that may reach the private API, and how it is treated. Nothing else passes.

Paths are matched as they came, undecoded, and sent on exactly as they were matched: what the private API
reads can never differ from what was allowed here. This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

from contracts.names import TASK_ID_PATTERN
from contracts.problems import ProblemCode
from contracts.timing import MAX_WAIT_SECONDS
from serving.problems import ProblemError

MAX_QUERY_FIELDS = 50
# What people write where a key does not belong.
_KEY_FIELDS = frozenset({"key", "api_key", "apikey", "api-key", "x-api-key", "token", "access_token"})

# One segment: unreserved characters and escapes, but never an escaped slash, backslash, dot or NUL, and never
# dots alone; some servers and proxies would read those as another path.
SEGMENT = (
    r"(?!\.{1,2}(?:/|\Z))"
    r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%(?!00|2[fF]|5[cC]|2[eE])[0-9A-Fa-f]{2}){1,512}"
)


_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


class Kind(StrEnum):
    """How much of us a request takes."""

    CONTROL = "control"  # Small both ways.
    BULK = "bulk"  # A zip, one way or the other.
    WAIT = "wait"  # Small, but held until something happens.


@dataclass(frozen=True)
class Target:
    """The address of a request, undecoded."""

    path: str
    query: str

    @property
    def sent(self) -> str:
        """As it goes into the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class Rule:
    """One path and, by method, what it takes."""

    # The path with {} for each id; the name of this rule in metrics and logs.
    template: str
    pattern: re.Pattern[str]
    kinds: dict[str, Kind]
    workers_only: bool = False


def _rule(path: str, *, workers_only: bool = False, **kinds: Kind) -> Rule:
    return Rule(path, re.compile(path.replace("{}", SEGMENT)), kinds, workers_only)


_C, _B, _W = Kind.CONTROL, Kind.BULK, Kind.WAIT
# Where the private API does not look at a key, so that its answer says nothing about one.
KEYLESS_PATHS = frozenset({"/openapi.json"})
RULES = (
    _rule("/openapi.json", GET=_C),
    _rule("/v1/models", GET=_C, POST=_B),
    _rule("/v1/models/{}", GET=_C, PATCH=_B, DELETE=_C),
    _rule("/v1/tasks", GET=_C, POST=_B, PUT=_B),
    _rule("/v1/tasks/{}", GET=_C, DELETE=_C),
    _rule("/v1/tasks/{}/input", GET=_B),
    _rule("/v1/tasks/{}/output", GET=_B),
    _rule("/v1/tasks/{}/logs", GET=_B),
    _rule("/v1/tasks/{}/cancel", POST=_C),
    _rule("/v1/tasks/{}/retry", POST=_C),
    _rule("/v1/keys", GET=_C, POST=_C),
    _rule("/v1/keys/{}", GET=_C, DELETE=_C),
    _rule("/v1/nodes", GET=_C),
    _rule("/v1/nodes/{}", GET=_C, DELETE=_C),
    _rule("/v1/nodes/{}/drain", POST=_C),
    _rule("/v1/nodes/{}/resume", POST=_C),
    _rule("/v1/nodes/{}/report", POST=_C, workers_only=True),
    _rule("/v1/nodes/{}/content/{}", GET=_B, workers_only=True),
    _rule("/v1/dead-letters", GET=_C, DELETE=_C),
    _rule("/v1/leases", POST=_W, workers_only=True),
    _rule("/v1/leases/withdraw", POST=_C, workers_only=True),
    _rule("/v1/leases/{}/heartbeat", POST=_W, workers_only=True),
    _rule("/v1/leases/{}/logs", POST=_B, workers_only=True),
    _rule("/v1/leases/{}/input", GET=_B, workers_only=True),
    _rule("/v1/leases/{}/content", GET=_B, workers_only=True),
    _rule("/v1/leases/{}/output", PUT=_B, workers_only=True),
    _rule("/v1/leases/{}/complete", POST=_C, workers_only=True),
    _rule("/v1/leases/{}/fail", POST=_C, workers_only=True),
)


class MethodRefusedError(ProblemError):
    """The path exists, the method does not; ``allowed`` says which do."""

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(
            ProblemCode.METHOD_NOT_ALLOWED, f"{method} is not possible here, only {', '.join(allowed)}."
        )
        self.allowed = allowed


def parse_target(raw_uri: str) -> Target:
    """The target as it stood in the request line; raises ``ProblemError`` for one that could be misread."""
    if absolute := _ABSOLUTE.match(raw_uri):
        # The form that proxies send: the host is ours whatever it says, and ends at the first of these three.
        rest = raw_uri[absolute.end() :]
        raw_uri = rest if rest.startswith("/") else f"/{rest}"
    if not raw_uri.startswith("/") or "#" in raw_uri:
        raise ProblemError(ProblemCode.BAD_REQUEST, "The address must be a path without a fragment.")
    path, _, query = raw_uri.partition("?")
    return Target(path, query)


def query_fields(query: str) -> list[tuple[str, str]]:
    """The decoded fields; raises ``ProblemError`` for too many, and for a key among them."""
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise ProblemError(
            ProblemCode.BAD_REQUEST, f"The address has more than {MAX_QUERY_FIELDS} parameters."
        ) from None
    for name, _ in fields:
        if name.lower() in _KEY_FIELDS:
            raise ProblemError(
                ProblemCode.BAD_REQUEST,
                "A key must not stand in an address, where logs and histories keep it. Send it as"
                " 'Authorization: Bearer KEY', and replace this one if it was real.",
            )
    return fields


def find_kind(method: str, path: str, *, worker_routes: bool) -> Kind:
    """How to treat a request; raises ``ProblemError`` for one that is not on the list."""
    return kind_of_method(method, find_rule(path, worker_routes=worker_routes).kinds)


def find_rule(path: str, *, worker_routes: bool) -> Rule:
    """The rule for a path; raises ``ProblemError`` for one that is not on the list."""
    for rule in RULES:
        if rule.pattern.fullmatch(path) and (worker_routes or not rule.workers_only):
            return rule
    raise ProblemError(
        ProblemCode.NOT_FOUND, "There is nothing at this address; /openapi.json lists what is."
    )


_TASK_PATH = re.compile(rf"/v1/tasks/({TASK_ID_PATTERN})(?:/.*)?|/{{1,2}}api/tasks/({TASK_ID_PATTERN})/?")


def task_id_in(path: str) -> str | None:
    """The id of the task that a path is about, for the log."""
    found = _TASK_PATH.fullmatch(path)
    return (found[1] or found[2]) if found else None


def kind_of_method(method: str, kinds: dict[str, Kind]) -> Kind:
    """The kind for ``method``, where HEAD counts as GET; raises ``MethodRefusedError``."""
    kind = kinds.get("GET" if method == "HEAD" else method)
    if kind is None:
        raise MethodRefusedError(method, sorted({*kinds, "HEAD"} if "GET" in kinds else kinds))
    return kind


_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


def asked_wait_seconds(kind: Kind, prefer: str | None, fields: list[tuple[str, str]]) -> float:
    """How long the answer may be held because the client, or the protocol of workers, asks for it."""
    if kind is Kind.WAIT:
        return MAX_WAIT_SECONDS
    texts = [match[1] for match in _PREFER_WAIT.finditer(prefer or "")]
    texts += [value for name, value in fields if name == "wait" and value.isascii() and value.isdigit()]
    return min(max((float(text[:9]) for text in texts), default=0.0), MAX_WAIT_SECONDS)
