"""Who really asks: the address, scheme and host behind the proxies that the operator trusts.

``bootstrap`` wraps the application in it, so that nothing behind it reads a forwarding header: those of a
trusted peer are folded into the request itself, all others are dropped.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

from serving.request_facts import facts_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_FORWARDING = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
# Never believed, and dropped lest anybody should.
_OTHERS = ("HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PREFIX")


class BehindProxies:
    """A WSGI application, ``inner``, that sees the client instead of the trusted proxies before it."""

    def __init__(self, inner: Callable[..., Any], trusted: Iterable[Network]) -> None:
        self._inner = inner
        self._trusted = tuple(trusted)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Put the client in the proxy's place, and pass the request on."""
        facts_of(environ).forwarded = any(name in environ for name in (*_FORWARDING, *_OTHERS, "HTTP_VIA"))
        chain, scheme, host = (environ.pop(name, "") for name in _FORWARDING)
        for name in _OTHERS:
            environ.pop(name, None)
        peer = environ.get("REMOTE_ADDR", "")
        if is_trusted(peer, self._trusted):
            # In place, so that the server's own access log names the client too.
            environ["REMOTE_ADDR"] = client_address(peer, chain, self._trusted)
            if (last := _last(scheme).lower()) in {"http", "https"}:
                environ["wsgi.url_scheme"] = last
            if _HOST.fullmatch(_last(host)):
                environ["HTTP_HOST"] = _last(host)
        return self._inner(environ, start_response)


def client_address(peer: str, forwarded_for: str, trusted: tuple[Network, ...]) -> str:
    """The nearest hop that is not trusted. Pure.

    Each proxy adds the address of who spoke to it on the right, so from the right they are true as far as
    they were added by trusted proxies; whatever stands further left anybody could have written.
    """
    address = peer
    for text in reversed(forwarded_for.split(",")):
        hop = _parsed(text.strip())
        if hop is None or not is_trusted(address, trusted):
            break
        address = str(hop)
    return address


def is_trusted(address: str, trusted: tuple[Network, ...]) -> bool:
    """Whether ``address`` is that of a trusted proxy. Pure."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parsed(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _last(values: str) -> str:
    return values.rsplit(",", 1)[-1].strip()
