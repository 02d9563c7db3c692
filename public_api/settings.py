"""What an operator may set for the public API, read once from the environment and never changed.

Only ``__main__`` and tests make one. A wrong value raises ``SettingsError`` with the variable's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from public_api.certificates import TlsCheck
from public_api.clients import Network

GIB = 1024**3
_TLS_CHECK = re.compile(r"(?P<host>[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/(?P<name>[A-Za-z0-9._-]{1,253})")


class SettingsError(ValueError):
    """An environment variable has a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The public API's settings. Sizes in bytes, times in seconds."""

    bind: str = "127.0.0.1:8080"
    private_api_url: str = "http://127.0.0.1:8081"
    # Above any model's own limit; the private API judges further.
    max_upload_bytes: int = 20 * GIB
    # The key that stands in for 1.x clients without one; None keeps their task routes closed.
    anonymous_key: str | None = None
    # Whether workers outside may claim tasks through here.
    worker_routes: bool = False
    # Uploads and downloads at once. Each holds two connections and a few megabytes.
    bulk_transfers: int = 96
    # Requests at once that wait for something to happen: log followers, held answers, workers' claims.
    waiting_calls: int = 1536
    # Short calls at once, so that they pass while the two above are full.
    control_calls: int = 64
    # Threads beside all those places, which say that a place is not to be had, and that this process lives.
    spare_threads: int = 16
    # Wrong keys from one address in a minute before it has to pause.
    failed_keys_per_minute: int = 100
    # A client that sends or reads nothing for this long loses its connection.
    stall_seconds: int = 60
    # A line for each request: its method, route, status, duration, bytes, and the key's id.
    access_log: bool = True
    # Processes that serve. Each has all the places above, and a count of wrong keys of its own.
    workers: int = 1
    # Proxies whose word on who the client is counts; from all others such headers are dropped.
    trusted_proxies: tuple[Network, ...] = ()
    # Names whose certificates are watched, and where the proxy shows them.
    tls_checks: tuple[TlsCheck, ...] = ()

    @property
    def threads(self) -> int:
        """Threads that serve requests."""
        return self.bulk_transfers + self.waiting_calls + self.control_calls + self.spare_threads

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``environment``; raises ``SettingsError``."""
        anonymous = _switch(environment, "PUBLIC_API_ANONYMOUS_TASKS")
        return cls(
            bind=environment.get("PUBLIC_API_BIND", cls.bind),
            private_api_url=_url(environment, "PRIVATE_API_URL", cls.private_api_url),
            max_upload_bytes=_number(environment, "MAX_UPLOAD_BYTES", cls.max_upload_bytes),
            anonymous_key=_key(environment, "PUBLIC_API_ANONYMOUS_KEY_FILE") if anonymous else None,
            worker_routes=_switch(environment, "PUBLIC_API_WORKER_ROUTES"),
            bulk_transfers=_number(environment, "PUBLIC_API_BULK_TRANSFERS", cls.bulk_transfers),
            waiting_calls=_number(environment, "PUBLIC_API_WAITING_CALLS", cls.waiting_calls),
            failed_keys_per_minute=_number(
                environment, "PUBLIC_API_FAILED_KEYS_PER_MINUTE", cls.failed_keys_per_minute
            ),
            stall_seconds=_number(environment, "PUBLIC_API_STALL_SECONDS", cls.stall_seconds),
            access_log=_switch(environment, "PUBLIC_API_ACCESS_LOG", default="1"),
            workers=_number(environment, "PUBLIC_API_WORKERS", cls.workers),
            trusted_proxies=_networks(environment, "TRUSTED_PROXIES"),
            tls_checks=_tls_checks(environment, "TLS_CHECKS"),
        )


def _switch(environment: Mapping[str, str], name: str, *, default: str = "0") -> bool:
    text = environment.get(name, default)
    if text not in {"0", "1"}:
        raise SettingsError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1"


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)


def _url(environment: Mapping[str, str], name: str, default: str) -> str:
    text = environment.get(name, default).rstrip("/")
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 80) > 0
    except ValueError:
        usable = False
    if not usable or parts.path or parts.query:
        raise SettingsError(f"{name} must look like http://HOST:PORT, not {text!r}")
    return text


def _networks(environment: Mapping[str, str], name: str) -> tuple[Network, ...]:
    texts = [text.strip() for text in environment.get(name, "").split(",")]
    try:
        return tuple(ipaddress.ip_network(text) for text in texts if text)
    except ValueError as error:
        raise SettingsError(
            f"{name} must hold networks such as 172.28.0.0/24, with commas: {error}"
        ) from None


def _tls_checks(environment: Mapping[str, str], name: str) -> tuple[TlsCheck, ...]:
    texts = [text.strip() for text in environment.get(name, "").split(",")]
    found = [(_TLS_CHECK.fullmatch(text), text) for text in texts if text]
    for match, text in found:
        if match is None or not 0 < int(match["port"]) < 65536:
            raise SettingsError(f"{name} must hold HOST:PORT/NAME, with commas between, not {text!r}")
    return tuple(TlsCheck(match["host"], int(match["port"]), match["name"]) for match, _ in found if match)


def _key(environment: Mapping[str, str], name: str) -> str:
    path = environment.get(name)
    if not path:
        raise SettingsError(f"{name} must name the file with the key for PUBLIC_API_ANONYMOUS_TASKS=1")
    try:
        key = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error}") from error
    if not key or any(not character.isprintable() or character.isspace() for character in key):
        raise SettingsError(f"{name}: {path} must hold one key on one line")
    return key
