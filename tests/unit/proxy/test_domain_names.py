"""What may be a domain."""

from __future__ import annotations

import pytest

from proxy.names import DomainNameError, TlsKind, check_kind, normalized_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Server.Example.", "server.example"),
        ("server", "server"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.Server.example", "*.server.example"),
        ("10.0.0.5", "10.0.0.5"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("3com.example", "3com.example"),
    ],
)
def test_a_name_is_written_as_certificates_write_it(text: str, name: str) -> None:
    assert normalized_name(text) == name
    assert normalized_name(name) == name


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("https://server.example", "leave out https://"),
        ("server.example/path", "leave out"),
        ("user@server.example", "leave out"),
        ("server.example:443", "port"),
        ("localhost", "always served"),
        ("LOCALHOST.", "always served"),
        ("", "not a domain name"),
        (".", "not a domain name"),
        ("a..b", "not a domain name"),
        ("-a.example", "not a domain name"),
        ("a_b.example", "not a domain name"),
        ("a b.example", "not a domain name"),
        ("*", "not a domain name"),
        ("a.*.example", "not a domain name"),
        ("*.*.example", "not a domain name"),
        ("a" * 64 + ".example", "not a domain name"),
        ("☃.example", "not a domain name"),
        ("10.0.0", "neither an IP address"),
        ("10.0.0.256", "neither an IP address"),
        ("{env.HOME}", "not a domain name"),
        ("../../etc", "leave out"),
    ],
)
def test_what_is_no_domain_is_refused_with_a_reason(text: str, word: str) -> None:
    with pytest.raises(DomainNameError, match=word):
        normalized_name(text)


@pytest.mark.parametrize("name", ["*.server.example", "10.0.0.5", "server"])
def test_what_acme_cannot_sign_is_refused(name: str) -> None:
    with pytest.raises(DomainNameError, match="files"):
        check_kind(name, TlsKind.ACME, public_ca=True)
    check_kind(name, TlsKind.FILES, public_ca=True)
    check_kind(name, TlsKind.INTERNAL, public_ca=True)


def test_an_authority_of_one_s_own_may_sign_short_names() -> None:
    check_kind("server", TlsKind.ACME, public_ca=False)
