"""The proxy's settings: right values are read, wrong ones name their variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[3]


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings().https_address == "proxy-admin-api:8443"


def test_values_are_read() -> None:
    # when
    settings = Settings.from_environment(
        {
            "PUBLIC_API_UPSTREAMS": "a:1, b_c:2,[::1]:3",
            "HTTPS_PORT": "443",
            "PROXY_HTTPS_BIND": "127.0.0.1:9443",
            "PROXY_ACME_CA": "https://ca.example/directory",
        }
    )

    # then
    assert settings.upstreams == ("a:1", "b_c:2", "[::1]:3")
    assert (settings.public_https_port, settings.https_address) == (443, "127.0.0.1:9443")
    assert settings.acme_ca == "https://ca.example/directory"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_API_UPSTREAMS", ""), ("PUBLIC_API_UPSTREAMS", "a"), ("PUBLIC_API_UPSTREAMS", "a:1,,b:2"),
        ("PUBLIC_API_UPSTREAMS", "http://a:1"), ("PUBLIC_API_UPSTREAMS", "a:0"),
        ("PUBLIC_API_UPSTREAMS", ":1"), ("PUBLIC_API_UPSTREAMS", "{env.X}:1"), ("HTTPS_PORT", "0"),
        ("HTTPS_PORT", "65536"), ("HTTPS_PORT", "https"),
        ("PROXY_ADMIN_API", ":2019"), ("PROXY_HTTPS_BIND", "8443"), ("PROXY_HTTP_BIND", ":99999"),
        ("PROXY_DIRECTORY", "state"), ("PROXY_ACME_CA", "http://ca.example"), ("PROXY_ACME_CA", "ca.example"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


def test_a_wrong_setting_ends_the_command_with_one_line() -> None:
    # when
    ended = subprocess.run(
        [sys.executable, "-m", "proxy", "render"],
        cwd=ROOT, env={"HTTPS_PORT": "https"}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    # then
    assert ended.returncode == 2
    assert ended.stderr == "proxy: HTTPS_PORT must be a port from 1 to 65535, not 'https'\n"
