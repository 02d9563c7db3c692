"""Settings and domains put onto the base configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.domains import BASE
from proxy.names import TlsKind
from proxy.records import Domain
from proxy.rendering import BaseError, render
from proxy.settings import Settings

ACME = Domain(name="acme.example", tls=TlsKind.ACME, email="a@b.c")
FILES = Domain(name="files.example", tls=TlsKind.FILES, certificate="files.example.0123")
INTERNAL = Domain(name="internal.example", tls=TlsKind.INTERNAL)
ADDRESS = Domain(name="10.0.0.5", tls=TlsKind.INTERNAL)


def base() -> Any:
    return json.loads(BASE.read_text())


def rendered(*domains: Domain, **settings: Any) -> Any:
    return render(
        base(), Settings(**settings), domains, lambda stem: (Path(f"/c/{stem}.crt"), Path(f"/c/{stem}.key"))
    )


def https(config: Any) -> Any:
    return config["apps"]["http"]["servers"]["https"]


def hsts_hosts(config: Any) -> Any:
    return next(route for route in https(config)["routes"] if route.get("@id") == "hsts")["match"][0]["host"]


def test_addresses_come_from_the_settings() -> None:
    # when
    config = rendered(upstreams=("a:1", "b:2"), public_https_port=443, https_bind="1.2.3.4:9443")

    # then
    assert config["admin"]["listen"] == "proxy-admin-api:2019"
    assert config["admin"]["origins"] == ["proxy-admin-api:2019"]
    assert config["admin"]["enforce_origin"] is True
    assert https(config)["listen"] == ["1.2.3.4:9443"]
    assert config["apps"]["http"]["https_port"] == 9443
    assert https(config)["routes"][-1]["handle"][0]["upstreams"] == [{"dial": "a:1"}, {"dial": "b:2"}]
    assert "https://{http.regexp.authority.1}{http.request.uri}" in json.dumps(config)


def test_each_kind_of_certificate_has_its_place() -> None:
    # when
    config = rendered(INTERNAL, FILES, ACME)

    # then
    tls = config["apps"]["tls"]
    assert tls["certificates"]["automate"] == ["localhost", "acme.example", "internal.example"]
    assert tls["certificates"]["load_files"] == [
        {
            "certificate": "/c/files.example.0123.crt",
            "key": "/c/files.example.0123.key",
            "tags": ["files.example.0123"],
        }
    ]
    assert tls["automation"]["policies"][1:] == [
        {"subjects": ["acme.example"], "issuers": [{"module": "acme", "email": "a@b.c"}]},
        {"subjects": ["internal.example"], "issuers": [{"module": "internal"}]},
    ]
    named, anyone = https(config)["tls_connection_policies"]
    assert named["match"] == {"sni": ["files.example"]}
    assert named["certificate_selection"] == {"any_tag": ["files.example.0123"]}
    assert anyone["default_sni"] == "localhost"


def test_a_name_of_its_own_comes_before_the_wildcard_that_covers_it() -> None:
    # given
    wildcard = Domain(name="*.example", tls=TlsKind.FILES, certificate="_.example.0123")

    # when
    policies = https(rendered(wildcard, FILES, ACME, INTERNAL))["tls_connection_policies"]

    # then
    assert [policy.get("match") for policy in policies] == [
        {"sni": ["acme.example"]}, {"sni": ["files.example"]}, {"sni": ["internal.example"]},
        {"sni": ["*.example"]}, None,
    ]  # fmt: skip
    assert [policy.get("certificate_selection") for policy in policies] == [
        None, {"any_tag": ["files.example.0123"]}, None, {"any_tag": ["_.example.0123"]}, None,
    ]  # fmt: skip


def test_an_authority_of_one_s_own_signs_by_acme() -> None:
    # when
    config = rendered(ACME, acme_ca="https://ca/dir", acme_ca_root=Path("/root.crt"))

    # then
    issuer = config["apps"]["tls"]["automation"]["policies"][1]["issuers"][0]
    assert (issuer["ca"], issuer["trusted_roots_pem_files"]) == ("https://ca/dir", ["/root.crt"])


def test_an_address_is_what_a_client_without_a_name_is_served() -> None:
    assert https(rendered(ADDRESS))["tls_connection_policies"][-1]["default_sni"] == "10.0.0.5"


def test_hsts_is_for_real_certificates_on_the_usual_port() -> None:
    assert hsts_hosts(rendered(ACME, FILES, INTERNAL, public_https_port=443)) == [
        "acme.example",
        "files.example",
    ]
    assert hsts_hosts(rendered(ACME, FILES, INTERNAL, public_https_port=8443)) == []


def test_the_base_itself_stays_as_it_is_and_the_order_of_domains_changes_nothing() -> None:
    # given
    untouched = base()

    # when
    render(untouched, Settings(), [ACME], lambda stem: (Path(stem), Path(stem)))

    # then
    assert untouched == base()
    assert rendered(ACME, FILES, INTERNAL) == rendered(INTERNAL, ACME, FILES)


@pytest.mark.parametrize(
    "place", ["https-server", "http-server", "public-api", "redirect", "hsts", "liveness-server"]
)
def test_a_base_that_lacks_a_place_is_named(place: str) -> None:
    # given
    damaged = json.loads(BASE.read_text().replace(f'"@id": "{place}"', '"@id": "gone"'))

    # when / then
    with pytest.raises(BaseError, match=place):
        render(damaged, Settings(), [], lambda stem: (Path(stem), Path(stem)))
