"""Where the server is and which key opens it: checked once, so that no later message can leak a key.

``Client`` and the command enter here with what people wrote. Nothing here opens a connection.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from inference_server_client.errors import ConfigurationError

DEFAULT_SERVER = "http://127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """``url`` carries neither key nor final slash; ``key`` is what stood in ``https://user:KEY@host/``."""

    url: str
    key: str | None = field(default=None, repr=False)
    loopback: bool = False
    encrypted: bool = False


def parse_server_address(text: str) -> ServerAddress:
    """Split an address into URL and key; raises ``ConfigurationError`` without repeating a key."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError("The server's address must look like https://host or http://host:8080.")
    if parts.query or parts.fragment:
        raise ConfigurationError(
            "The server's address must not contain '?' or '#'; give only scheme, host and path."
        )
    shown_host = f"[{host}]" if ":" in host else host
    netloc = shown_host if port is None else f"{shown_host}:{port}"
    url = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
    key = check_key(unquote(parts.password), "The key in the server's address") if parts.password else None
    return ServerAddress(url=url, key=key, loopback=_is_loopback(host), encrypted=parts.scheme == "https")


def check_key(text: str, what: str = "The key") -> str:
    """The key without white space around it; refuses what no HTTP header can carry."""
    key = text.strip()
    if not key:
        raise ConfigurationError(f"{what} is empty.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(f"{what} must be one line of printable characters without spaces.")
    return key


def read_key_file(path: Path) -> str:
    """The key in a file of one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"The key file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The key file {path} is not text; it must hold the key on one line."
        ) from error
    return check_key(text, f"The key in {path}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
