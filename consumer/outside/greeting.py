"""The first words between a worker outside and the server, and what is wrong where there are none.

``join`` enters, before anything is begun: here somebody sits at the terminal who can mend it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, ProxyError

from consumer.outside.errors import (
    CallRefusedError,
    ConsumerError,
    KeyRefusedError,
    ServerAwayError,
    SettingsError,
)
from consumer.outside.server import OwnKey, Server

# In OpenSSL: a certificate that is for another name, or another address.
_WRONG_NAME = {62, 64}


def greet(server: Server, url: str, *, ca: Path | None, key_file: Path) -> OwnKey:
    """Our own key as the server knows it; raises ``SettingsError`` that says in a sentence what is wrong."""
    try:
        own = server.own_key()
        if own.role != "worker":
            raise SettingsError(
                f"--key-file: {key_file} holds a key with the role {own.role}; ask an admin for a worker's "
                "(infer keys add NAME --role worker)."
            )
        if not server.has_worker_routes():
            raise SettingsError(
                f"--url: {url} lets no workers in from outside; an operator opens it with "
                "PUBLIC_API_WORKER_ROUTES=1."
            )
    except KeyRefusedError as error:
        raise SettingsError(
            f"--key-file: the server does not know the key in {key_file}: mistyped, expired or revoked."
        ) from error
    except CallRefusedError as error:
        raise SettingsError(f"--url: {url} does not answer as this server would ({error}).") from error
    except ServerAwayError as error:
        raise SettingsError(f"--url: {explain(error, url, ca)}") from error
    return own


def explain(error: ConsumerError, url: str, ca: Path | None) -> str:
    """What keeps us from the server, and what to do about it. Pure."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found = (_explained(cause, host, f"{host}:{port}", ca) for cause in _causes(error))
    return next((words for words in found if words), f"{error}.")


def _explained(cause: BaseException, host: str, place: str, ca: Path | None) -> str:
    """The sentence for one of the causes; empty for one that says nothing by itself."""
    said = ""
    if isinstance(cause, ProxyError):
        said = f"the HTTP proxy on the way (HTTPS_PROXY) does not lead to {host}: {cause.original_error}."
    elif isinstance(cause, NameResolutionError | socket.gaierror):
        said = f"the name {host} cannot be resolved; check its spelling, and this machine's name server."
    elif isinstance(cause, ssl.SSLCertVerificationError):
        said = _distrust(cause, host, ca)
    elif isinstance(cause, ssl.SSLError):
        said = f"{place} does not speak TLS as it should ({cause.reason or cause}); is the port right?"
    elif isinstance(cause, ConnectionRefusedError):
        said = f"{place} refuses connections; check the port, and whether the server runs."
    elif isinstance(cause, ConnectTimeoutError | TimeoutError):
        said = f"{place} does not answer; a firewall may be in between, or the address be wrong."
    elif isinstance(cause, OSError) and cause.strerror:
        said = f"{place} cannot be reached: {cause.strerror}."
    return said


def _distrust(error: ssl.SSLCertVerificationError, host: str, ca: Path | None) -> str:
    if error.verify_code in _WRONG_NAME:
        return f"the server's certificate is for another name than {host}; use the name that it was made for."
    said = error.verify_message or "it cannot be verified"
    if ca is not None:
        return f"the server's certificate is not trusted ({said}): no authority in {ca} has signed it (--ca)."
    return (
        f"the server's certificate is not trusted ({said}); give the certificate of the authority that "
        "signed it with --ca FILE."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """All that lies below ``error``, the innermost first."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.append(step)
        if isinstance(step, ProxyError):
            # It says more than what is inside.
            return iter([step])
        inner = [part for part in step.args if isinstance(part, BaseException)]
        step = step.__cause__ or step.__context__ or (inner[0] if inner else None)
    return reversed(found)
