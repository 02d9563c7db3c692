"""Which server, key and certificates a command uses: options win over the environment, that over a login.

``Invocation`` enters. Pure, but for the key file that somebody names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from inference_server_client.address import (
    DEFAULT_SERVER,
    ServerAddress,
    parse_server_address,
    read_key_file,
)
from inference_server_client.login_file import Login


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What was chosen. ``key_from`` says in words where the key stood, empty without one."""

    address: ServerAddress
    key: str | None = field(repr=False, default=None)
    key_from: str = ""
    ca_cert: Path | None = None


def login_path(environment: Mapping[str, str]) -> Path:
    """Where ``infer login`` keeps what it is told: the platform's place for a user's settings."""
    chosen = environment.get("INFER_CONFIG_DIR")
    return Path(chosen or click.get_app_dir("infer")) / "login.json"


def server_from_environment(environment: Mapping[str, str]) -> str | None:
    """The address that the environment names."""
    return environment.get("INFER_SERVER") or environment.get("INFERENCE_SERVER_URL") or None


def choose(
    environment: Mapping[str, str],
    login: Login | None,
    *,
    server: str | None = None,
    key_file: Path | None = None,
    ca_cert: Path | None = None,
) -> Connection:
    """The connection; raises ``ConfigurationError``.

    What was kept for one server is for that server only: its key is never sent to another one.
    """
    named = server or server_from_environment(environment)
    address = parse_server_address(named or (login.server if login else DEFAULT_SERVER))
    fitting = login if login is not None and login.server == address.url else None
    key, key_from = _key(environment, fitting, address.key, key_file)
    certificates = ca_cert or environment.get("INFER_CA_CERT") or (fitting.ca_cert if fitting else None)
    return Connection(
        address=address, key=key, key_from=key_from, ca_cert=Path(certificates) if certificates else None
    )


def _key(
    environment: Mapping[str, str], login: Login | None, key_in_address: str | None, key_file: Path | None
) -> tuple[str | None, str]:
    if key_file is not None:
        return read_key_file(key_file), f"--key-file {key_file}"
    if key_in_address is not None:
        return key_in_address, "the server's address"
    if key := environment.get("INFER_KEY"):
        return key, "INFER_KEY"
    if path := environment.get("INFER_KEY_FILE"):
        return read_key_file(Path(path)), f"INFER_KEY_FILE {path}"
    return (login.key, "infer login") if login is not None else (None, "")
