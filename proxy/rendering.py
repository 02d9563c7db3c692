"""The whole configuration of Caddy: the base file, this installation's settings, its domains. Pure.

Places in the base are found by their ``@id``, by which Caddy's admin API knows them too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from proxy.names import TlsKind, is_address
from proxy.records import Domain
from proxy.settings import Settings

Config = dict[str, Any]
CertificatePaths = Callable[[str], tuple[Path, Path]]


class BaseError(Exception):
    """The base configuration lacks a place that is filled in here."""


def render(
    base: Config, settings: Settings, domains: Iterable[Domain], certificate_paths: CertificatePaths
) -> Config:
    """What Caddy is to run; raises ``BaseError``. ``certificate_paths`` says where a pair lies."""
    config = copy.deepcopy(base)
    ordered = sorted(domains, key=lambda domain: domain.name)
    _put_addresses(config, settings)
    _put_certificates(config, settings, ordered, certificate_paths)
    strict = [domain.name for domain in ordered if domain.tls is not TlsKind.INTERNAL]
    # A browser that was told so speaks HTTPS to whatever port it is given, which goes well only with 80 and
    # 443; and it never lets its user pass a certificate that it does not know, as Caddy's own would be.
    _place(config, "hsts")["match"] = [{"host": strict if settings.public_https_port == 443 else []}]
    return config


def _put_addresses(config: Config, settings: Settings) -> None:
    config["admin"]["listen"] = settings.admin_api
    config["admin"]["origins"] = [settings.admin_api]
    http = config["apps"]["http"]
    http["http_port"] = int(settings.http_bind.rsplit(":", 1)[1])
    http["https_port"] = int(settings.https_bind.rsplit(":", 1)[1])
    _place(config, "https-server")["listen"] = [settings.https_bind]
    _place(config, "http-server")["listen"] = [settings.http_bind]
    _place(config, "liveness-server")["listen"] = [settings.liveness_bind]
    _place(config, "public-api")["upstreams"] = [{"dial": upstream} for upstream in settings.upstreams]
    port = "" if settings.public_https_port == 443 else f":{settings.public_https_port}"
    redirect = _place(config, "redirect")
    redirect["headers"]["Location"] = ["https://{http.regexp.authority.1}" + port + "{http.request.uri}"]


def _put_certificates(
    config: Config, settings: Settings, domains: list[Domain], certificate_paths: CertificatePaths
) -> None:
    tls = config["apps"]["tls"]
    policies = _place(config, "https-server")["tls_connection_policies"]
    files = []
    wildcards = [
        domain.name.removeprefix("*")
        for domain in domains
        if domain.name.startswith("*.") and domain.tls is TlsKind.FILES
    ]
    # A name of its own comes before the wildcard that covers it: the first policy that matches is taken.
    for domain in sorted(domains, key=lambda domain: domain.name.startswith("*.")):
        if domain.tls is TlsKind.FILES and domain.certificate is not None:
            certificate, key = certificate_paths(domain.certificate)
            files.append({"certificate": str(certificate), "key": str(key), "tags": [domain.certificate]})
            if not is_address(domain.name):
                # By its tag, so that no other certificate for the same name is served in its place.
                selection = {"any_tag": [domain.certificate]}
                policy = {"match": {"sni": [domain.name]}, "certificate_selection": selection}
                # The policy for any name comes last, since the first that matches is taken.
                policies.insert(len(policies) - 1, policy)
        else:
            tls["certificates"]["automate"].append(domain.name)
            tls["automation"]["policies"].append(
                {"subjects": [domain.name], "issuers": [_issuer(settings, domain)]}
            )
            if any(domain.name == domain.name.partition(".")[0] + suffix for suffix in wildcards):
                # Else it would be served the wildcard's certificate, which its policy names.
                policies.insert(len(policies) - 1, {"match": {"sni": [domain.name]}})
        if is_address(domain.name):
            # Clients send no name for an address, so it is what a client without a name is served.
            _place(config, "any-name")["default_sni"] = domain.name
    if files:
        tls["certificates"]["load_files"] = files


def _issuer(settings: Settings, domain: Domain) -> Config:
    if domain.tls is TlsKind.INTERNAL:
        return {"module": "internal"}
    issuer: Config = {"module": "acme"}
    if domain.email is not None:
        issuer["email"] = domain.email
    if settings.acme_ca is not None:
        issuer["ca"] = settings.acme_ca
    if settings.acme_ca_root is not None:
        issuer["trusted_roots_pem_files"] = [str(settings.acme_ca_root)]
    return issuer


def _place(config: Any, identifier: str) -> Config:
    found = _find(config, identifier)
    if found is None:
        raise BaseError(f"the base configuration has nothing with the @id {identifier!r}")
    return found


def _find(node: Any, identifier: str) -> Config | None:
    if isinstance(node, dict):
        if node.get("@id") == identifier:
            return node
        node = list(node.values())
    if not isinstance(node, list):
        return None
    return next((found for child in node if (found := _find(child, identifier)) is not None), None)
