"""What an operator may set for the public API, read once from the environment and never changed.

Only ``__main__`` and tests make one. A wrong value raises ``SettingsError`` with the variable's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

GIB = 1024**3


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
    waiting_calls: int = 512
    # Short calls at once, so that they pass while the two above are full.
    control_calls: int = 64
    # Threads beside all those places, which say that a place is not to be had, and that this process lives.
    spare_threads: int = 16
    # Wrong keys from one address in a minute before it has to pause.
    failed_keys_per_minute: int = 100
    # A client that sends or reads nothing for this long loses its connection.
    stall_seconds: int = 60
    access_log: bool = False

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
            access_log=_switch(environment, "PUBLIC_API_ACCESS_LOG"),
        )


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "0")
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
