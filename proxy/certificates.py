"""Looks at certificates: at a pair of files before Caddy does, and at what a running Caddy serves.

Whether a certificate and a key belong together, cover the name and may serve TLS is judged by OpenSSL itself:
a handshake is made in memory, between a server that has them and a client that trusts only this certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from proxy.names import is_address

# X509_V_FLAG_NO_CHECK_TIME: an expired certificate is looked at like any other; its dates are judged by us.
_NO_TIME_CHECK = 0x200000
_PEM_END = "-----END CERTIFICATE-----"
_MAX_BYTES = 256 * 1024
_CONNECT_SECONDS = 5.0
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)


class CertificateError(Exception):
    """The certificate or the key cannot be used; the sentence says why."""


@dataclass(frozen=True, kw_only=True)
class CertificateFacts:
    """What a certificate says of itself. Times are in UTC; the fingerprint is SHA-256, in hex."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    issuer: str
    fingerprint: str

    def days_left(self, now: datetime) -> int:
        """Whole days until it expires; negative when it has."""
        return (self.not_after - now).days


def split_bundle(text: str) -> tuple[str, str]:
    """The certificates, and the private key, of one text that holds both in PEM form. Pure."""
    blocks = [(match[1], match[0]) for match in _BLOCK.finditer(text)]
    certificates = "".join(block for kind, block in blocks if kind == "CERTIFICATE")
    return certificates, "".join(block for kind, block in blocks if kind.endswith("PRIVATE KEY"))


def examine_pair(certificate: Path, key: Path, name: str | None) -> CertificateFacts:
    """The facts of the first certificate in the file; raises ``CertificateError``.

    ``name`` None leaves out whether it covers the name. Its dates are the caller's to judge.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pem = _text(certificate)
    _text(key)
    try:
        server.load_cert_chain(certificate, key, password=_refuse_passphrase(key))
    except ssl.SSLError as error:
        raise CertificateError(_words_of_loading(error, certificate, key)) from error
    leaf, end, _ = pem.partition(_PEM_END)
    try:
        return _shake_hands(server, _trusting(leaf + end, check_name=name is not None), name)
    except ssl.SSLCertVerificationError as error:
        if "mismatch" in error.verify_message.lower():
            names = ", ".join(examine_pair(certificate, key, None).names) or "no name at all"
            raise CertificateError(f"{certificate} is for {names}, not for {name}") from error
        raise CertificateError(f"{certificate} cannot serve HTTPS: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise CertificateError(f"{certificate} cannot be used: {error.reason or error}") from error


def served_certificate(address: str, name: str) -> CertificateFacts:
    """What the server at ``address`` (HOST:PORT) serves for ``name``, whoever signed it.

    Raises ``CertificateError`` where it serves none, or does not answer.
    """
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    try:
        with _connected(address, name, anyone) as sock:
            der = sock.getpeercert(binary_form=True) or b""
        # Only a certificate that was verified is decoded, so a second look trusts just the one that was seen.
        with _connected(address, name, _trusting(ssl.DER_cert_to_PEM_cert(der), check_name=False)) as sock:
            return _facts(sock)
    except ssl.SSLError as error:
        raise CertificateError("no certificate yet") from error
    except OSError as error:
        raise CertificateError(f"{address} does not answer: {error}") from error


@contextlib.contextmanager
def _connected(address: str, name: str, context: ssl.SSLContext) -> Any:
    host, port = address.rsplit(":", 1)
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as plain,
        # Clients send no name for an address.
        context.wrap_socket(plain, server_hostname=None if is_address(name) else _any_of(name)) as sock,
    ):
        yield sock


def _any_of(name: str) -> str:
    return name.replace("*", "any", 1)


def _trusting(leaf_pem: str, *, check_name: bool) -> ssl.SSLContext:
    """A client that trusts this one certificate, whatever its dates and whoever signed it."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = check_name
    # As today's clients do: a name counts only where it stands among the alternative names.
    client.hostname_checks_common_name = False
    client.verify_flags = ssl.VerifyFlags(_NO_TIME_CHECK) | ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=leaf_pem)
    return client


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> CertificateFacts:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=_any_of(name) if name else None)
    # Two flights each way are enough for every version of TLS; a side that has finished says nothing more.
    for _ in range(4):
        for side in (here, there):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return _facts(here)


def _facts(sock: ssl.SSLSocket | ssl.SSLObject) -> CertificateFacts:
    der = sock.getpeercert(binary_form=True) or b""
    decoded: Any = sock.getpeercert() or {}
    issuer = {key: value for group in decoded.get("issuer", ()) for key, value in group}
    return CertificateFacts(
        not_before=_time(decoded["notBefore"]),
        not_after=_time(decoded["notAfter"]),
        names=tuple(value for _, value in decoded.get("subjectAltName", ())),
        issuer=issuer.get("commonName") or issuer.get("organizationName") or "an issuer without a name",
        fingerprint=hashlib.sha256(der).hexdigest(),
    )  # fmt: skip


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CertificateError(f"{path} is too large to be a certificate or a key")
        return path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error


def _refuse_passphrase(key: Path) -> Callable[[], str]:
    def refuse() -> NoReturn:
        raise CertificateError(f"{key} is encrypted; Caddy needs a key without a passphrase")

    return refuse


def _words_of_loading(error: ssl.SSLError, certificate: Path, key: Path) -> str:
    reason = error.reason or ""
    # With a key of another algorithm OpenSSL puts the certificate aside, and then misses it.
    if "MISMATCH" in reason or reason == "NO_CERTIFICATE_ASSIGNED":
        return f"{key} is not the key of {certificate}"
    if "BEGIN CERTIFICATE" not in _text(certificate):
        return f"{certificate} holds no certificate in PEM form"
    if "PRIVATE KEY" not in _text(key):
        return f"{key} holds no private key in PEM form"
    return f"{certificate} or {key} cannot be used: {reason.replace('_', ' ').lower() or error}"
