"""Who is calling, and whether they may: keys are read from the request and roles judged here only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import Flask, Response, g, request
from sqlalchemy.exc import SQLAlchemyError

from contracts.names import KEY_ID_HEADER
from contracts.problems import ProblemCode
from private_api.http.services import services
from private_api.store.keys import ApiKey, Role, find_key, touch_key
from serving.problems import ProblemError
from serving.request_facts import facts_of

_log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")

# What `any key` means where people are meant.
PEOPLE = (Role.ADMIN, Role.USER)


@dataclass(frozen=True)
class Caller:
    """The valid key that came with the request, and its secret."""

    key: ApiKey
    secret: str

    @property
    def is_admin(self) -> bool:
        """Whether the caller sees what belongs to others."""
        return self.key.role is Role.ADMIN


def caller() -> Caller:
    """Who sent the present request; only behind ``allow``."""
    found: Caller = g.caller
    return found


def allow(*roles: Role) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let only valid keys with one of these roles through a door."""

    def decorate(view: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(view)
        def guarded(*arguments: _P.args, **named: _P.kwargs) -> _R:
            g.caller = _authenticate()
            facts_of(request.environ).key_id = g.caller.key.id
            if g.caller.key.role not in roles:
                wanted = " or ".join(role.value for role in roles)
                raise ProblemError(
                    ProblemCode.FORBIDDEN,
                    f"This needs a key with the role {wanted}; yours is a {g.caller.key.role.value} key.",
                )
            return view(*arguments, **named)

        return guarded

    return decorate


def name_keys(app: Flask) -> None:
    """Have every answer of ``app`` say whose key was found, for the log of whoever relays it."""

    @app.after_request
    def _name(response: Response) -> Response:
        key_id = facts_of(request.environ).key_id
        if key_id is not None:
            response.headers[KEY_ID_HEADER] = key_id
        return response


def _authenticate() -> Caller:
    secret = _presented_secret()
    if secret is None:
        raise ProblemError(
            ProblemCode.UNAUTHENTICATED,
            "Send a key: 'Authorization: Bearer KEY', 'X-API-Key: KEY', or Basic with the key as password.",
        )
    database = services().database
    with database.read() as connection:
        key = find_key(connection, secret)
    if key is None:
        raise ProblemError(
            ProblemCode.UNAUTHENTICATED, "This key is not valid: mistyped, expired or revoked."
        )
    if not key.use_is_noted:
        try:
            with database.write() as connection:
                touch_key(connection, key.id)
        except SQLAlchemyError:
            # Reading must go on where writing cannot, on a full disk for instance.
            _log.warning(
                "a key's use could not be noted", extra={"action": "key_not_noted", "key_id": key.id}
            )
    return Caller(key=key, secret=secret)


def _presented_secret() -> str | None:
    try:
        given = request.authorization
    except ValueError:
        # Werkzeug trips over Basic credentials that are not Base64 at all.
        return None
    if given is not None and given.type == "basic":
        # A user name alone is what `curl -u KEY:` sends.
        return given.password or given.username or None
    if given is not None and given.type == "bearer":
        return given.token or None
    return request.headers.get("X-API-Key") or None
