"""What an operator may set for the proxy, read once from the environment and never changed.

Only ``__main__`` and tests make one. A wrong value raises ``SettingsError`` with the variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?:(?P<port>[0-9]{1,5})")


class SettingsError(ValueError):
    """An environment variable has a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The proxy's settings. Addresses are HOST:PORT."""

    # Records of domains, their certificates and the rendered configuration. Caddy sees it at the same path.
    directory: Path = Path("/var/lib/proxy")
    # Where requests go; each replica is asked for its health.
    upstreams: tuple[str, ...] = ("public_api:8080",)
    # The port that people outside use, for the redirect from HTTP; Caddy's own may differ.
    public_https_port: int = 8443
    # Caddy's admin API: where it listens and where we call it. The name must mean the private network only.
    admin_api: str = "proxy-admin-api:2019"
    # Where Caddy listens. Ports above 1023 need no rights.
    https_bind: str = ":8443"
    http_bind: str = ":8080"
    # Says that Caddy lives, to whoever asks inside its container.
    liveness_bind: str = "127.0.0.1:2020"
    # An ACME directory of one's own in place of the public ones, and the root that its HTTPS is signed by.
    acme_ca: str | None = None
    acme_ca_root: Path | None = None

    @property
    def https_address(self) -> str:
        """Where a TLS handshake shows what Caddy serves: its HTTPS port, on the host of its admin API."""
        host, port = self.https_bind.rsplit(":", 1)
        return f"{host or self.admin_api.rsplit(':', 1)[0]}:{port}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read ``environment``; raises ``SettingsError``."""
        upstreams = environment.get("PUBLIC_API_UPSTREAMS", ",".join(cls.upstreams)).split(",")
        root = environment.get("PROXY_ACME_CA_ROOT")
        return cls(
            directory=_directory(environment, "PROXY_DIRECTORY", cls.directory),
            upstreams=tuple(_address("PUBLIC_API_UPSTREAMS", text.strip()) for text in upstreams),
            public_https_port=_port(environment, "HTTPS_PORT", cls.public_https_port),
            admin_api=_address("PROXY_ADMIN_API", environment.get("PROXY_ADMIN_API", cls.admin_api)),
            https_bind=_bind(environment, "PROXY_HTTPS_BIND", cls.https_bind),
            http_bind=_bind(environment, "PROXY_HTTP_BIND", cls.http_bind),
            liveness_bind=_bind(environment, "PROXY_LIVENESS_BIND", cls.liveness_bind),
            acme_ca=_acme_ca(environment, "PROXY_ACME_CA"),
            acme_ca_root=Path(root) if root else None,
        )


def _address(name: str, text: str, *, host_needed: bool = True) -> str:
    match = _ADDRESS.fullmatch(text)
    usable = match is not None and 0 < int(match["port"]) < 65536 and (match["host"] or not host_needed)
    if not usable:
        raise SettingsError(f"{name} must hold HOST:PORT, not {text!r}")
    return text


def _bind(environment: Mapping[str, str], name: str, default: str) -> str:
    return _address(name, environment.get(name, default), host_needed=False)


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise SettingsError(f"{name} must be a port from 1 to 65535, not {text!r}")
    return int(text)


def _directory(environment: Mapping[str, str], name: str, default: Path) -> Path:
    path = Path(environment.get(name, default))
    # Caddy reads certificates by these paths, from a working directory of its own.
    if not path.is_absolute():
        raise SettingsError(f"{name} must be an absolute path, not {str(path)!r}")
    return path


def _acme_ca(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name)
    if not text:
        return None
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname:
        raise SettingsError(f"{name} must be the https:// address of an ACME directory, not {text!r}")
    return text
