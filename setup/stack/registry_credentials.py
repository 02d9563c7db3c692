"""What the stack's consumers tell private registries: our copy of the file that an operator names.

The stack's secrets enter. The copy stays until another file is named, so that a later start needs none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path

from setup.console import SetupError

VARIABLE = "REGISTRY_CREDENTIALS_FILE"
# In place of a file: forget those that were given before.
NONE = "none"
# Of our copy.
NAME = "registry-credentials.json"
# What a consumer reads that has none.
EMPTY = '{"auths": {}}\n'


def read(environment: Mapping[str, str]) -> str | None:
    """What our copy shall hold; null when it stays as it is. Raises ``SetupError`` that quotes nothing of it.

    Whether each entry can be used, the consumer says; here a file is refused that is another altogether.
    """
    named = environment.get(VARIABLE, "")
    if not named:
        return None
    if named == NONE:
        return EMPTY
    try:
        text = Path(named).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SetupError(f"{VARIABLE}: {named} cannot be read: {reason}.") from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("auths"), dict):
        raise SetupError(f'{VARIABLE}: {named} is no config.json of docker login: it has no object "auths".')
    return text


def fingerprint(text: str, key: bytes) -> str:
    """Changes with the credentials, and tells nothing of them to whoever does not have ``key``."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:16]
