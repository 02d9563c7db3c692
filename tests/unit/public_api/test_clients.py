"""Who asks, behind proxies: right-most untrusted hop, and nothing from peers that nobody trusts."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from contracts.problems import ProblemCode
from public_api.clients import BehindProxies, client_address
from public_api.credentials import refuse_cross_site
from public_api.settings import Settings, SettingsError
from serving.problems import ProblemError

TRUSTED = (ipaddress.ip_network("172.28.0.0/24"), ipaddress.ip_network("fd00::/64"))
FORGED = {
    "HTTP_X_FORWARDED_FOR": "8.8.8.8",
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "evil.example",
    "HTTP_FORWARDED": "for=8.8.8.8",
    "HTTP_X_REAL_IP": "8.8.8.8",
}


def seen_behind(peer: str, **headers: str) -> dict[str, Any]:
    """The environ that the application gets."""
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "own.example", **headers}
    seen: list[dict[str, Any]] = []
    BehindProxies(lambda environ, _: seen.append(environ), TRUSTED)(environ, None)
    return seen[0]


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("172.28.0.9", "203.0.113.5", "203.0.113.5"),
        ("203.0.113.5", "8.8.8.8", "203.0.113.5"),
        ("172.28.0.9", "", "172.28.0.9"),
        # What the client itself wrote stands on the left of what the first trusted proxy saw.
        ("172.28.0.9", "8.8.8.8, 203.0.113.5", "203.0.113.5"),
        ("172.28.0.9", "8.8.8.8, 203.0.113.5, 172.28.0.3", "203.0.113.5"),
        ("172.28.0.9", "172.28.0.2,172.28.0.3", "172.28.0.2"),
        ("172.28.0.9", "203.0.113.5, unknown", "172.28.0.9"),
        ("172.28.0.9", "203.0.113.5, 172.28.0.3:99", "172.28.0.9"),
        ("172.28.0.9", "203.0.113.5, ", "172.28.0.9"),
        ("::ffff:172.28.0.9", "2001:db8::1", "2001:db8::1"),
        ("fd00::9", "::ffff:203.0.113.5", "203.0.113.5"),
        ("", "203.0.113.5", ""),
    ],
)
def test_the_client_is_the_nearest_hop_that_nobody_trusts(peer: str, chain: str, client: str) -> None:
    assert client_address(peer, chain, TRUSTED) == client


def test_a_stranger_changes_nothing_by_forwarding_headers() -> None:
    # when
    seen = seen_behind("203.0.113.5", **FORGED)

    # then
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == (
        "203.0.113.5", "http", "own.example",
    )  # fmt: skip
    assert not set(FORGED) & set(seen)


def test_a_trusted_proxy_is_believed_and_its_headers_go_no_further() -> None:
    # when
    seen = seen_behind("172.28.0.9", **FORGED)

    # then
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == (
        "8.8.8.8", "https", "evil.example",
    )  # fmt: skip
    assert not set(FORGED) & set(seen)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("HTTP_X_FORWARDED_PROTO", "gopher"),
        ("HTTP_X_FORWARDED_HOST", "a b"),
        ("HTTP_X_FORWARDED_HOST", "x/y"),
        ("HTTP_X_FORWARDED_HOST", ""),
        ("HTTP_X_FORWARDED_FOR", "' or 1=1"),
    ],
)
def test_nonsense_from_a_trusted_proxy_changes_nothing(header: str, value: str) -> None:
    # when
    seen = seen_behind("172.28.0.9", **{header: value})

    # then
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == (
        "172.28.0.9", "http", "own.example",
    )  # fmt: skip


def test_networks_are_read_and_a_wrong_one_names_its_variable() -> None:
    assert (
        Settings.from_environment({"TRUSTED_PROXIES": " 172.28.0.0/24 ,fd00::/64,"}).trusted_proxies
        == TRUSTED
    )
    for wrong in ("172.28.0.1/24", "proxy", "*"):
        with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
            Settings.from_environment({"TRUSTED_PROXIES": wrong})


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("https://own.example", True),
        ("https://own.example:443", True),
        ("http://own.example", False),
        ("https://own.example:8443", False),
        ("https://evil.example", False),
    ],
)
def test_behind_tls_a_page_of_plain_http_is_another_site(origin: str, own: bool) -> None:
    # given
    environ = {
        "HTTP_AUTHORIZATION": "Basic x", "HTTP_ORIGIN": origin, "HTTP_HOST": "own.example",
        "wsgi.url_scheme": "https",
    }  # fmt: skip

    # when / then
    if own:
        refuse_cross_site(environ)
        return
    with pytest.raises(ProblemError) as caught:
        refuse_cross_site(environ)
    assert caught.value.code is ProblemCode.CROSS_SITE_REFUSED
