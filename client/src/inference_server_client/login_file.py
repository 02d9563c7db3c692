"""The file in which ``infer login`` keeps a server's address and key, readable by its owner only.

The command enters. Nothing here opens a connection or prints; where the file lies is the caller's choice.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from inference_server_client.address import check_key, parse_server_address
from inference_server_client.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Login:
    """Whom the key opens. ``ca_cert`` is an absolute path, null for the system's own certificates."""

    server: str
    key: str = field(repr=False)
    ca_cert: Path | None = None


def read_login(path: Path) -> Login | None:
    """What is kept at ``path``, None where nothing is; raises ``ConfigurationError`` that says what to do."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        # Checked as if somebody had typed them, for somebody may have.
        server = parse_server_address(document["server"]).url
        key = check_key(document["key"], "The key in it")
        ca_cert = Path(document["ca_cert"]) if document.get("ca_cert") else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"The login in {path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as error:
        raise ConfigurationError(f"The login in {path} cannot be understood; run: infer login") from error
    return Login(server=server, key=key, ca_cert=ca_cert)


def write_login(path: Path, login: Login) -> None:
    """Keep ``login`` in place of what was there, in one step; raises ``OSError``."""
    document = {
        "server": login.server,
        "key": login.key,
        "ca_cert": str(login.ca_cert) if login.ca_cert else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    # Made with its final rights: there is no moment at which others may read it.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2) + "\n")
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def remove_login(path: Path) -> bool:
    """Forget what is kept; whether there was anything."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def others_may_read(path: Path) -> bool:
    """Whether the file's rights let other users read it; Windows has rights of another kind."""
    if os.name != "posix":
        return False
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False
