"""The domains of this installation, one small file each, and the certificates that were given for them.

They lie in a volume and outlive every base configuration. A damaged record costs its own domain, no other.
Whoever changes them holds the lock; nobody else writes here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.names import DomainNameError, TlsKind, normalized_name

_VERSION = 1


class RecordError(Exception):
    """A record, or the place of all records, cannot be used; the sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain as it was asked for. ``certificate`` is the stem of its two files, where it has some."""

    name: str
    tls: TlsKind
    email: str | None = None
    certificate: str | None = None


@dataclass(frozen=True, kw_only=True)
class Records:
    """What was read: the domains by name, and a sentence for each record that could not be."""

    domains: dict[str, Domain]
    damaged: tuple[str, ...] = ()


class RecordStore:
    """See the module; ``directory`` is made where it is missing."""

    def __init__(self, directory: Path) -> None:
        self.rendered_path = directory / "caddy.json"
        self._domains = directory / "domains"
        self._certificates = directory / "certificates"
        self._lock = directory / "lock"
        try:
            for path in (directory, self._domains, self._certificates):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"{error.filename} cannot be made: {error.strerror}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While this is entered, nobody else changes anything here; waits for who does."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RecordError(f"{self._lock} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> Records:
        """All records; a file that is no record is told of, not raised."""
        domains: dict[str, Domain] = {}
        damaged = []
        for path in sorted(self._domains.glob("*.json")):
            try:
                domain = _domain_of(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError) as error:
                damaged.append(f"{path} is left out, since it is damaged: {error!r}")
                continue
            domains[domain.name] = domain
        return Records(domains=domains, damaged=tuple(damaged))

    def write(self, domain: Domain) -> None:
        """Record ``domain``, in place of what was recorded of it."""
        text = json.dumps({"version": _VERSION, **asdict(domain)}, indent=2)
        _replace(self._record(domain.name), text + "\n")

    def remove(self, name: str) -> None:
        """Forget ``name``; its certificate files go with the next sweep."""
        path = self._record(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise RecordError(f"{path} cannot be removed: {error.strerror}") from error

    def write_rendered(self, text: str) -> None:
        """Keep the whole configuration, which Caddy reads when it starts."""
        _replace(self.rendered_path, text)

    def read_rendered(self) -> str | None:
        """What is kept of it; None before the first time."""
        try:
            return self.rendered_path.read_text(encoding="utf-8")
        except OSError:
            return None

    def keep_certificate(self, name: str, certificate: Path, key: Path) -> str:
        """Copy a pair to where Caddy reads it, readable by nobody else; returns its stem."""
        texts = []
        for source in (certificate, key):
            try:
                texts.append(source.read_text(encoding="ascii", errors="replace"))
            except OSError as error:
                raise RecordError(f"{source} cannot be read: {error.strerror}") from error
        # With its hash in it, whatever differs has another path: Caddy reads it anew, be it only that the
        # same certificate came with other intermediates, and what is served meanwhile stays as it is.
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        stem = f"{_file_name(name)}.{digest[:16]}"
        for text, target in zip(texts, self.certificate_paths(stem), strict=True):
            _replace(target, text)
        return stem

    def certificate_paths(self, stem: str) -> tuple[Path, Path]:
        """Where a pair lies: the certificate, the key."""
        return self._certificates / f"{stem}.crt", self._certificates / f"{stem}.key"

    def sweep(self, domains: dict[str, Domain]) -> None:
        """Remove the pairs that none of ``domains`` names."""
        named = {domain.certificate for domain in domains.values()}
        for path in self._certificates.iterdir():
            if path.name.rpartition(".")[0] not in named:
                path.unlink(missing_ok=True)

    def _record(self, name: str) -> Path:
        return self._domains / f"{_file_name(name)}.json"


def _domain_of(fields: dict[str, object]) -> Domain:
    if fields["version"] != _VERSION:
        raise ValueError(f"its version is {fields['version']!r}, and only {_VERSION} is known here")
    name, email, certificate = fields["name"], fields.get("email"), fields.get("certificate")
    if not isinstance(name, str) or normalized_name(name) != name:
        raise DomainNameError(f"{name!r} is no domain")
    return Domain(
        name=name,
        tls=TlsKind(str(fields["tls"])),
        email=None if email is None else str(email),
        certificate=None if certificate is None else str(certificate),
    )


def _file_name(name: str) -> str:
    return name.replace("*", "_")


def _replace(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a crash, finds the old or the new whole."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # It is open already.
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written: {error.strerror}") from error
