"""The command line of operators, ``python -m proxy``: words in, a line out; the work is done elsewhere."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from proxy.admin_api import AdminApi, AdminApiError
from proxy.certificates import CertificateError, served_certificate, split_bundle
from proxy.domains import WARN_DAYS, DomainError, Domains, Wish
from proxy.names import ALWAYS_SERVED, DomainNameError, TlsKind
from proxy.records import Domain, RecordError, RecordStore
from proxy.rendering import BaseError
from proxy.settings import Settings

_STDIN = Path("-")
_MAX_BUNDLE_CHARACTERS = 256 * 1024
_MISTAKES = (AdminApiError, BaseError, CertificateError, DomainError, DomainNameError, RecordError)


def run(arguments: list[str], settings: Settings) -> int:
    """Do what ``arguments`` say; returns the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        admin_api = AdminApi(settings.admin_api)
        if parsed.command == "ca":
            sys.stdout.write(admin_api.root_certificate())
            return 0
        domains = Domains(settings, admin_api, RecordStore(settings.directory), _warn)
        if parsed.command == "domains":
            return _domains(parsed, domains, settings)
        if parsed.command == "render":
            _say(f"{domains.render()} is what Caddy starts with")
        elif parsed.command == "apply":
            domains.apply()
            _say("Caddy runs what is recorded")
        else:
            return _status(domains, admin_api)
    except _MISTAKES as error:
        _warn(str(error))
        return 1
    return 0


def _domains(parsed: argparse.Namespace, domains: Domains, settings: Settings) -> int:
    if parsed.action == "list":
        _list(domains, settings)
    elif parsed.action == "remove":
        _say(f"{domains.remove(parsed.name)} is no longer served")
    else:
        with _given_files(parsed) as (certificate, key):
            _put(parsed, domains, certificate, key)
    return 0


def _put(parsed: argparse.Namespace, domains: Domains, certificate: Path | None, key: Path | None) -> None:
    wish = Wish(
        tls=parsed.tls, email=parsed.email, certificate=certificate, key=key, force=parsed.force
    )  # fmt: skip
    put = domains.add if parsed.action == "add" else domains.change
    _say(_word_of(put(parsed.name, wish)))


@contextmanager
def _given_files(parsed: argparse.Namespace) -> Iterator[tuple[Path | None, Path | None]]:
    """The certificate and the key as files. Where ``-`` is given, both come together from standard input.

    So a key that only root may read reaches this user, without a copy on the operator's disk.
    """
    if parsed.certificate != _STDIN:
        yield parsed.certificate, parsed.key
        return
    if parsed.key is not None:
        raise DomainError("--certificate - reads the key from standard input too; leave out --key")
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory, "input.crt"), Path(directory, "input.key")
        texts = split_bundle(sys.stdin.read(_MAX_BUNDLE_CHARACTERS))
        for path, text in zip(pair, texts, strict=True):
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        yield pair


def _word_of(domain: Domain) -> str:
    if domain.tls is TlsKind.ACME:
        return f"{domain.name}: Caddy asks for a certificate now; 'domains list' shows when it is there"
    if domain.tls is TlsKind.INTERNAL:
        return f"{domain.name} is served by the internal authority; clients need its root certificate ('ca')"
    return f"{domain.name} is served with this certificate"


def _list(domains: Domains, settings: Settings) -> None:
    rows = [("DOMAIN", "TLS", "EXPIRES", "SIGNED BY")]
    everything = [Domain(name=ALWAYS_SERVED, tls=TlsKind.INTERNAL), *domains.all()]
    for domain in everything:
        try:
            facts = served_certificate(settings.https_address, domain.name)
        except CertificateError as error:
            rows.append((domain.name, domain.tls.value, "-", str(error)))
            continue
        days = facts.days_left(datetime.now(UTC))
        note = f"{facts.not_after:%Y-%m-%d}"
        if days < 0:
            note += " EXPIRED"
        elif domain.tls is not TlsKind.FILES:
            note += " renewed by itself"
        elif days < WARN_DAYS:
            note += f" in {days} days: renew it"
        rows.append((domain.name, domain.tls.value, note, facts.issuer))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        _say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _status(domains: Domains, admin_api: AdminApi) -> int:
    for upstream in admin_api.upstreams():
        _say(f"upstream {upstream['address']}: {upstream['num_requests']} requests under way")
    if domains.differs():
        _say("Caddy runs something else than what is recorded; 'apply' mends that")
        return 1
    _say("Caddy runs what is recorded")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m proxy", description="Manages the proxy while it runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("ca", help="print the root certificate of Caddy's own authority")
    commands.add_parser("status", help="show where requests go, and whether Caddy runs what is recorded")
    commands.add_parser("apply", help="have Caddy run what is recorded, with the settings of now")
    commands.add_parser("render", help="write what Caddy starts with; before its start")
    actions = commands.add_parser(
        "domains", help="the names under which the server is reached"
    ).add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="show each domain and the certificate that it is served with")
    for action, words in (("add", "serve another domain"), ("change", "serve a domain otherwise")):
        command = actions.add_parser(action, help=words)
        command.add_argument("name")
        command.add_argument(
            "--tls", type=TlsKind, choices=list(TlsKind), help="where its certificate comes from"
        )
        command.add_argument("--email", help="for the ACME account")
        command.add_argument(
            "--certificate",
            type=Path,
            metavar="FILE",
            help="PEM, with its intermediates; - for this and the key from input",
        )
        command.add_argument("--key", type=Path, metavar="FILE", help="PEM, without a passphrase")
        command.add_argument("--force", action="store_true", help="take a certificate in spite of its dates")
    actions.add_parser("remove", help="serve a domain no longer").add_argument("name")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _warn(sentence: str) -> None:
    sys.stderr.write(f"proxy: {sentence}\n")
