"""What private registries want to hear before they hand out an image: a file as ``docker login`` writes it.

Pulls enter with a reference. The file is read again when it has changed, so that a token may be exchanged
while the node works. What is in it goes to the engine with a pull and nowhere else: never into a log, nor an
error.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from consumer.outside.errors import SettingsError

_log = logging.getLogger(__name__)

VARIABLE = "REGISTRY_CREDENTIALS_FILE"
# The registry of references that name none, and what docker login calls it.
_DEFAULT, _DEFAULT_NAMES = "docker.io", {"index.docker.io", "registry-1.docker.io", "docker.io"}
# What the engine understands (Docker's HTTP API, X-Registry-Auth).
_TOKENS = {"identitytoken": "identitytoken", "registrytoken": "registrytoken"}


class RegistryCredentials:
    """The credentials in one file, as they are now. For calls from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._seen: tuple[int, ...] | None = None
        self._found: Mapping[str, dict[str, str]] = {}

    def check(self) -> None:
        """Read the file; raises ``SettingsError`` that says what is wrong with it."""
        with self._lock:
            self._seen = self._mark()
            self._found = self._read()

    def __call__(self, reference: str) -> dict[str, str] | None:
        """What to tell the registry of ``reference``; None where the file names none for it."""
        with self._lock:
            mark = self._mark()
            if mark != self._seen:
                self._seen = mark
                try:
                    self._found = self._read()
                except SettingsError as error:
                    # Half written, perhaps. What was in it last may still be good.
                    said = {"action": "credentials_unreadable"}
                    _log.warning("%s What it held before is used.", error, extra=said)
            known = self._found.get(registry_of(reference))
        return None if known is None else dict(known)

    def _mark(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"{VARIABLE}: {self._path} cannot be read: {reason}.") from None
        try:
            return parse_credentials(text)
        except ValueError as error:
            raise SettingsError(f"{VARIABLE}: {self._path} {error}.") from None


def parse_credentials(text: str) -> dict[str, dict[str, str]]:
    """What to tell each registry, by its host (and port); raises ``ValueError`` that quotes nothing of it.

    Source of the format: the configuration file of Docker's command line, ``auths``.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    auths = document.get("auths") if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise ValueError('has no object "auths": it must look like the config.json of docker login')
    return {host_of(name): _entry(name, entry, document) for name, entry in auths.items()}


def registry_of(reference: str) -> str:
    """The host (and port) of the registry of an image reference."""
    first, slash, _ = reference.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return _DEFAULT if first in _DEFAULT_NAMES else first.lower()
    return _DEFAULT


def host_of(name: str) -> str:
    """The registry that an entry's name means: ``https://host/v1/`` and ``host`` are the same."""
    host = name.partition("://")[2] or name
    host = host.partition("/")[0].lower()
    return _DEFAULT if host in _DEFAULT_NAMES else host


def _entry(name: str, entry: Any, document: Mapping[str, Any]) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise ValueError(f"says nothing of {name} that can be understood")
    for key, known in _TOKENS.items():
        if entry.get(key):
            return {known: str(entry[key]), "serveraddress": name}
    username, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        username, password = _decoded(name, str(entry["auth"]))
    if username and password is not None:
        return {"username": str(username), "password": str(password), "serveraddress": name}
    if document.get("credsStore") or document.get("credHelpers"):
        raise ValueError(
            f"leaves the password for {name} to a credential helper; write it into the file itself"
        )
    raise ValueError(f"has neither a password nor a token for {name}")


def _decoded(name: str, auth: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except ValueError:
        colon = username = password = ""
    if not colon or not username:
        raise ValueError(f'has an "auth" for {name} that is no base64 of user:password')
    # Docker's own command line pads what it stores.
    return username, password.strip("\0")
