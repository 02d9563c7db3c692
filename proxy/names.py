"""What may be a domain, and how it is written from then on. Pure."""

from __future__ import annotations

import ipaddress
from enum import StrEnum

import idna

# Always served, by the base configuration.
ALWAYS_SERVED = "localhost"


class TlsKind(StrEnum):
    """Where a domain's certificate comes from."""

    ACME = "acme"  # Asked for and renewed by Caddy, as from Let's Encrypt.
    FILES = "files"  # Given by the operator.
    INTERNAL = "internal"  # Caddy's own authority, whose root certificate clients must be given.


class DomainNameError(ValueError):
    """This cannot be a domain, or not with this kind of certificate; the sentence says why."""


def is_address(name: str) -> bool:
    """Whether ``name`` is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def normalized_name(text: str) -> str:
    """``text`` as certificates and clients write it: lower case, IDNA 2008; raises ``DomainNameError``."""
    if "/" in text or "@" in text:
        raise DomainNameError(f"{text!r} is not a name alone; leave out https://, paths and users")
    bare = text.strip().strip("[]")
    if is_address(bare):
        return str(ipaddress.ip_address(bare))
    if ":" in text:
        raise DomainNameError(f"{text!r} holds a port; a domain is the name alone")
    wildcard = "*." if bare.startswith("*.") else ""
    try:
        name = idna.encode(bare.removeprefix("*."), uts46=True, std3_rules=True).decode("ascii")
    except idna.IDNAError as error:
        raise DomainNameError(f"{text!r} is not a domain name: {error}") from error
    name = name.removesuffix(".")
    if name == ALWAYS_SERVED:
        raise DomainNameError("localhost is always served; there is nothing to manage")
    if name.rsplit(".", 1)[-1].isdigit():
        raise DomainNameError(f"{text!r} is neither an IP address nor a domain name")
    return wildcard + name


def check_kind(name: str, tls: TlsKind, *, public_ca: bool) -> None:
    """Raise ``DomainNameError`` where ``tls`` cannot give ``name`` a certificate.

    ``public_ca``: ACME means the authorities of the internet, which know no private names.
    """
    if tls is not TlsKind.ACME:
        return
    if name.startswith("*."):
        raise DomainNameError(
            f"{name}: a wildcard by ACME needs a DNS challenge, which is not offered; use --tls files"
        )
    if is_address(name):
        raise DomainNameError(f"{name}: an address gets no certificate by ACME; use --tls files or internal")
    if public_ca and "." not in name:
        raise DomainNameError(
            f"{name}: public authorities sign names with a dot only; use --tls files or internal"
        )
