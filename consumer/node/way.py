"""Which way this node reaches the server: beside it, to the private API, or from outside by everybody's door.

``settings`` enters. A worker outside speaks HTTPS and has nothing but its key: no broker, no port of its own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from consumer.outside.connections import tls_context
from consumer.outside.errors import SettingsError

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
# What a worker outside has no use for, and why it would be a mistake.
_INSIDE = {
    "BROKER_URL": "a worker outside hears of tasks by asking the server, never from a broker",
    "PRIVATE_API_URL": "a worker is either beside the private API or outside",
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where to and how."""

    url: str
    is_outside: bool = False
    ca: Path | None = None
    proxy: str | None = None


def way_to_server(environment: Mapping[str, str]) -> Way:
    """The way that the settings choose; raises ``SettingsError`` that names the variable at fault."""
    given = {name: text.strip() for name, text in environment.items() if text.strip()}
    outside, ca = given.get("INFERENCE_SERVER_URL", ""), given.get("INFERENCE_SERVER_CA", "")
    if not outside:
        if ca:
            raise SettingsError("INFERENCE_SERVER_CA needs INFERENCE_SERVER_URL; set both or neither.")
        return Way(url=_address("PRIVATE_API_URL", given.get("PRIVATE_API_URL", "http://127.0.0.1:8081")))
    for name, reason in _INSIDE.items():
        if name in given:
            raise SettingsError(f"{name} and INFERENCE_SERVER_URL are both set: {reason}; leave one out.")
    url = _address("INFERENCE_SERVER_URL", outside)
    if not url.startswith("https:") and not _is_loopback(urlsplit(url).hostname or ""):
        raise SettingsError(
            f"INFERENCE_SERVER_URL must begin with https://, not be {url!r}: the key would be readable on "
            "its way."
        )
    return Way(url=url, is_outside=True, ca=_authorities(ca) if ca else None, proxy=_proxy(given, url))


def _address(variable: str, text: str) -> str:
    url = text.rstrip("/")
    try:
        fits = _ADDRESS.fullmatch(url) is not None and bool(urlsplit(url).hostname)
        # Reading it is what finds a port that is none.
        fits = fits and (urlsplit(url).port or 1) > 0
    except ValueError:
        fits = False
    if not fits:
        raise SettingsError(f"{variable} must be an http or https address, not {text!r}.")
    return url


def _authorities(text: str) -> Path:
    path = Path(text).resolve()
    try:
        tls_context(path)
    except OSError as error:
        reason = error.strerror or "it holds no certificate in PEM"
        if "SSL" in type(error).__name__ or not error.errno:
            reason = "it holds no certificate in PEM"
        raise SettingsError(f"INFERENCE_SERVER_CA: {path} cannot be used: {reason}.") from error
    return path


def _proxy(given: Mapping[str, str], url: str) -> str | None:
    parts = urlsplit(url)
    name = "HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY"
    proxy = given.get(name.lower()) or given.get(name)
    if proxy is None or _goes_direct(
        parts.hostname or "", given.get("no_proxy") or given.get("NO_PROXY", "")
    ):
        return None
    if not re.fullmatch(r"https?://[^\s/]+/?", proxy):
        # Not shown: it may hold a password.
        raise SettingsError(f"{name} must look like http://proxy.example.org:3128.")
    return proxy


def _goes_direct(host: str, exceptions: str) -> bool:
    """Whether ``host`` is one of the names, or in one of the domains, that NO_PROXY lists."""
    names = [name.strip().lstrip("*").lstrip(".").lower() for name in exceptions.split(",") if name.strip()]
    return "*" in exceptions.split(",") or any(host == name or host.endswith(f".{name}") for name in names)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
