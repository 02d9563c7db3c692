"""Which way a node goes to its server, and what of the environment it does not believe."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from consumer.node.settings import Settings
from consumer.outside.connections import open_pool, tls_context
from consumer.outside.errors import SettingsError

OUTSIDE = {"INFERENCE_SERVER_URL": "https://inference.example.org/"}


def test_a_worker_outside_has_an_address_and_nothing_else() -> None:
    settings = Settings.from_environment(OUTSIDE)
    assert settings.private_api_url == "https://inference.example.org"
    assert (settings.broker, settings.server_ca, settings.server_proxy) == (None, None, None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"BROKER_URL": "amqp://worker@rabbitmq:5672/%2F"}, "BROKER_URL and INFERENCE_SERVER_URL"),
        ({"PRIVATE_API_URL": "http://private_api:8081"}, "PRIVATE_API_URL and INFERENCE_SERVER_URL"),
        ({"INFERENCE_SERVER_URL": "http://inference.example.org"}, "must begin with https://"),
        ({"INFERENCE_SERVER_URL": "inference.example.org"}, "INFERENCE_SERVER_URL must be"),
        ({"INFERENCE_SERVER_URL": "https://me:secret@example.org"}, "INFERENCE_SERVER_URL must be"),
        ({"INFERENCE_SERVER_URL": "https://example.org:0x"}, "INFERENCE_SERVER_URL must be"),
        ({"INFERENCE_SERVER_CA": "/no/such/file"}, "INFERENCE_SERVER_CA: .*No such file"),
        ({"HTTPS_PROXY": "proxy:3128"}, "HTTPS_PROXY must look like"),
    ],
)
def test_what_does_not_go_together_is_named(more: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Settings.from_environment({**OUTSIDE, **more})


def test_an_authority_without_an_address_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="INFERENCE_SERVER_CA needs"):
        Settings.from_environment({"INFERENCE_SERVER_CA": "/etc/ca.pem"})


def test_a_file_of_authorities_must_hold_one(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"INFERENCE_SERVER_CA: .*no certificate in PEM"):
        Settings.from_environment({**OUTSIDE, "INFERENCE_SERVER_CA": str(file)})


def test_an_open_way_is_for_this_machine_only() -> None:
    assert Settings.from_environment({"INFERENCE_SERVER_URL": "http://localhost:8080"}).broker is None
    Settings.from_environment({"INFERENCE_SERVER_URL": "http://127.0.0.1:8080"})


@pytest.mark.parametrize(
    ("more", "proxy"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://u:p@proxy:3128"}, "http://u:p@proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "localhost, .example.org"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "inference.example.org"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "le.org"}, "http://proxy:3128"),
    ],
)
def test_the_networks_own_proxy_is_used(more: dict[str, str], proxy: str | None) -> None:
    assert Settings.from_environment({**OUTSIDE, **more}).server_proxy == proxy


def test_a_worker_inside_goes_through_no_proxy() -> None:
    assert Settings.from_environment({"HTTPS_PROXY": "http://proxy:3128"}).server_proxy is None


def test_the_password_of_a_proxy_is_not_part_of_its_address() -> None:
    pool = open_pool("https://x", proxy="http://me:s%40cret@proxy:3128")
    assert pool.proxy.url == "http://proxy:3128"  # type: ignore[attr-defined]  # A pool that goes through one.
    headers = pool.proxy_headers  # type: ignore[attr-defined]
    assert headers == {"proxy-authorization": "Basic bWU6c0BjcmV0"}


def test_names_and_chains_are_always_looked_at() -> None:
    context = tls_context(None)
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
