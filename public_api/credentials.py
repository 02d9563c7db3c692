"""What a request's key tells without being judged: whether there is one, and who made it be sent. Pure.

A browser that once logged in by HTTP Basic sends the key along with whatever any page asks of us, so such
requests from other sites are refused here, before anybody looks at the key.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from contracts.problems import ProblemCode
from serving.problems import ProblemError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def presented_credential(environ: dict[str, Any]) -> str | None:
    """Whatever the request offers as proof, as one text; None where it offers nothing."""
    offered = [environ.get("HTTP_AUTHORIZATION", ""), environ.get("HTTP_X_API_KEY", "")]
    return "\n".join(offered) if any(offered) else None


def refuse_cross_site(environ: dict[str, Any], *, ambient: bool = False) -> None:
    """Raise ``ProblemError`` where another site's page made the browser send a key that it does not know.

    ``ambient``: the key will be added by us, so that any page could use it.
    """
    scheme = environ.get("HTTP_AUTHORIZATION", "").split(" ", 1)[0].lower()
    if (scheme == "basic" or ambient) and _is_cross_site(environ):
        raise ProblemError(
            ProblemCode.CROSS_SITE_REFUSED,
            "A page of another site made this request; send the key as 'Authorization: Bearer KEY' instead.",
        )


def _is_cross_site(environ: dict[str, Any]) -> bool:
    if environ.get("HTTP_SEC_FETCH_SITE", "").strip().lower() == "cross-site":
        return True
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return False
    # The scheme is known to be HTTPS only where a trusted proxy said so; without one it may be, unseen.
    schemes = {"https"} if environ.get("wsgi.url_scheme") == "https" else set(_DEFAULT_PORTS)
    return not _is_own_origin(origin.strip(), environ.get("HTTP_HOST", ""), schemes)


def _is_own_origin(origin: str, host: str, schemes: set[str]) -> bool:
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(theirs.scheme)
        return (
            default is not None
            and theirs.scheme in schemes
            and theirs.hostname is not None
            and (theirs.hostname, theirs.port or default) == (ours.hostname, ours.port or default)
        )
    except ValueError:
        return False
