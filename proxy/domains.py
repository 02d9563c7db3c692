"""Changes of domains, each whole or not at all: Caddy first, then the record that outlives it.

The commands enter here. A change renders the configuration as it would be and has Caddy take it over; only
then is it recorded, and if recording fails Caddy is given its old configuration back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.admin_api import AdminApi
from proxy.certificates import CertificateError, CertificateFacts, examine_pair
from proxy.names import TlsKind, check_kind, is_address, normalized_name
from proxy.records import Domain, RecordError, Records, RecordStore
from proxy.rendering import Config, render
from proxy.settings import Settings

BASE = Path(__file__).with_name("base.json")
WARN_DAYS = 30


class DomainError(Exception):
    """The change cannot be made; the sentence says why. Nothing has changed."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for a domain; None leaves it as it is, or at its default for a new one."""

    tls: TlsKind | None = None
    email: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    # Take a certificate whose dates are wrong.
    force: bool = False


class Domains:
    """The domains of one installation. ``warn`` is told, in a sentence, what deserves attention."""

    def __init__(
        self, settings: Settings, admin_api: AdminApi, store: RecordStore, warn: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._admin_api = admin_api
        self._store = store
        self._warn = warn

    def add(self, text: str, wish: Wish) -> Domain:
        """Serve another domain; raises ``DomainError`` and what the rooms below raise."""
        name = normalized_name(text)
        with self._store.locked():
            records = self._read()
            if name in records.domains:
                raise DomainError(f"{name} is served already; 'domains change {name}' changes it")
            _refuse_second_address(name, records.domains)
            tls = wish.tls or (TlsKind.FILES if wish.certificate else TlsKind.ACME)
            return self._put(Domain(name=name, tls=tls), wish, records)

    def change(self, text: str, wish: Wish) -> Domain:
        """Serve a domain otherwise than before; raises as ``add`` does."""
        name = normalized_name(text)
        with self._store.locked():
            records = self._read()
            domain = _known(name, records.domains)
            tls = wish.tls or (TlsKind.FILES if wish.certificate else domain.tls)
            return self._put(replace(domain, tls=tls), wish, records)

    def remove(self, text: str) -> str:
        """Serve a domain no longer; returns its name."""
        name = normalized_name(text)
        with self._store.locked():
            records = self._read()
            _known(name, records.domains)
            left = {other: domain for other, domain in records.domains.items() if other != name}
            self._take_over(left, lambda: self._store.remove(name))
            self._sweep(left, records)
        return name

    def all(self) -> list[Domain]:
        """The domains by name."""
        return list(self._read().domains.values())

    def apply(self) -> None:
        """Have Caddy run what is recorded, with the base and the settings of now."""
        with self._store.locked():
            self._take_over(self._read().domains, lambda: None)

    def render(self) -> Path:
        """Write what Caddy is to run when it starts; returns where. Needs no running Caddy."""
        with self._store.locked():
            self._store.write_rendered(_text(self._rendered(self._read().domains)))
        return self._store.rendered_path

    def differs(self) -> bool:
        """Whether Caddy runs something else than what is recorded."""
        return self._admin_api.running() != self._rendered(self._read().domains)

    def _put(self, domain: Domain, wish: Wish, records: Records) -> Domain:
        check_kind(domain.name, domain.tls, public_ca=self._settings.acme_ca is None)
        domain = self._with_email(domain, wish)
        domain = self._with_files(domain, wish)
        after = {**records.domains, domain.name: domain}
        try:
            self._take_over(after, lambda: self._store.write(domain))
        except BaseException:
            self._sweep(records.domains, records)
            raise
        self._sweep(after, records)
        return domain

    def _sweep(self, domains: dict[str, Domain], records: Records) -> None:
        # Which certificate a damaged record names is not known, and its key may be the only one there is.
        if not records.damaged:
            self._store.sweep(domains)

    def _with_email(self, domain: Domain, wish: Wish) -> Domain:
        if domain.tls is not TlsKind.ACME:
            if wish.email is not None:
                raise DomainError("--email is for --tls acme only")
            return replace(domain, email=None)
        if wish.email is not None and ("@" not in wish.email or any(c.isspace() for c in wish.email)):
            raise DomainError(f"{wish.email!r} is not an e-mail address")
        return domain if wish.email is None else replace(domain, email=wish.email)

    def _with_files(self, domain: Domain, wish: Wish) -> Domain:
        if domain.tls is not TlsKind.FILES:
            if wish.certificate is not None or wish.key is not None:
                raise DomainError("--certificate and --key are for --tls files only")
            return replace(domain, certificate=None)
        if wish.certificate is None or wish.key is None:
            if wish.certificate is wish.key and domain.certificate is not None:
                return domain
            raise DomainError("--tls files needs both --certificate FILE and --key FILE")
        facts = examine_pair(wish.certificate, wish.key, domain.name)
        self._judge_dates(wish, facts)
        if wish.key.stat().st_mode & 0o077:
            self._warn(f"{wish.key} can be read by other users; the copy that was made of it cannot")
        stem = self._store.keep_certificate(domain.name, wish.certificate, wish.key)
        return replace(domain, certificate=stem)

    def _judge_dates(self, wish: Wish, facts: CertificateFacts) -> None:
        now = datetime.now(UTC)
        sentence = ""
        if facts.not_after <= now:
            sentence = f"{wish.certificate} expired on {facts.not_after:%Y-%m-%d}"
        elif facts.not_before > now:
            sentence = f"{wish.certificate} is valid only from {facts.not_before:%Y-%m-%d %H:%M} UTC on"
        if sentence and not wish.force:
            raise DomainError(f"{sentence}, and clients would refuse it; --force uses it all the same")
        if sentence:
            self._warn(f"{sentence}; clients refuse it")
        elif facts.days_left(now) < WARN_DAYS:
            self._warn(
                f"{wish.certificate} expires in {facts.days_left(now)} days, on {facts.not_after:%Y-%m-%d}"
            )

    def _take_over(self, domains: dict[str, Domain], record: Callable[[], None]) -> None:
        config = self._rendered(domains)
        before, kept = self._admin_api.running(), self._store.read_rendered()
        self._admin_api.load(config)
        try:
            # The record comes last: once it is there, the change outlives everything.
            self._store.write_rendered(_text(config))
            record()
        except RecordError:
            if kept is not None:
                with contextlib.suppress(RecordError):
                    self._store.write_rendered(kept)
            self._admin_api.load(before)
            raise

    def _rendered(self, domains: dict[str, Domain]) -> Config:
        base: Config = json.loads(BASE.read_text(encoding="utf-8"))
        return render(base, self._settings, self._usable(domains), self._store.certificate_paths)

    def _read(self) -> Records:
        records = self._store.read()
        for sentence in records.damaged:
            self._warn(sentence)
        return records

    def _usable(self, domains: dict[str, Domain]) -> list[Domain]:
        """The domains less those whose files Caddy could not read, which would keep it from starting."""
        usable = []
        for domain in domains.values():
            try:
                if domain.tls is TlsKind.FILES:
                    # Its dates are not looked at: an expired certificate is served, and clients say so.
                    examine_pair(*self._store.certificate_paths(domain.certificate or ""), None)
            except CertificateError as error:
                self._warn(f"{domain.name} is left out: {error}")
                continue
            usable.append(domain)
        return usable


def _known(name: str, domains: dict[str, Domain]) -> Domain:
    try:
        return domains[name]
    except KeyError:
        raise DomainError(f"{name} is not served; 'domains list' shows what is") from None


def _refuse_second_address(name: str, domains: dict[str, Domain]) -> None:
    other = next((other for other in domains if is_address(other)), None)
    if other is not None and is_address(name):
        raise DomainError(
            f"{other} is served already, and clients do not say which address they mean, so there can be one;"
            f" remove it first, or give {name} a name"
        )


def _text(config: Any) -> str:
    return json.dumps(config, indent=2) + "\n"
