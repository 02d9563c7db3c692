"""What no request of anybody's may hold, refused once for all doors: NUL, which no database stores."""

from __future__ import annotations

from flask import Flask, request

from contracts.problems import ProblemCode
from serving.problems import ProblemError


def refuse_strange_requests(app: Flask) -> None:
    """Refuse NUL in paths and queries before any door of ``app`` sees them; forms ask ``refuse_nul``."""

    @app.before_request
    def _refuse() -> None:
        if "\x00" in request.path:
            raise ProblemError(ProblemCode.NOT_FOUND, "There is nothing at this address.")
        for name, value in request.args.items(multi=True):
            refuse_nul(name, value)


def refuse_nul(name: str, value: str) -> None:
    """Raise a problem that names the field when it, or its name, holds NUL."""
    if "\x00" in name or "\x00" in value:
        shown = name.replace("\x00", "\N{REPLACEMENT CHARACTER}")[:80]
        raise ProblemError(ProblemCode.INVALID_FIELD, f"{shown}: must not contain NUL characters.")
