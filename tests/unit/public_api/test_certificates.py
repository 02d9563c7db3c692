"""The dates of the certificates that a TLS server shows, seen over real handshakes."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from public_api.certificates import Certificates, TlsCheck, shown_validity
from public_api.settings import Settings, SettingsError
from tests.rig.certificates import make_certificate, tls_server


@pytest.mark.parametrize("days_left", [30, -2])
def test_the_dates_are_those_of_the_certificate_even_of_an_expired_one(
    tmp_path: Path, days_left: int
) -> None:
    # Given a server whose certificate nobody trusts, and has or has not expired
    now = datetime.now(UTC).replace(microsecond=0)
    begin, end = now - timedelta(days=60), now + timedelta(days=days_left)
    with tls_server(make_certificate(tmp_path, begin=begin, end=end)) as port:
        # When it is looked at
        validity = shown_validity(TlsCheck("127.0.0.1", port, "localhost"))

    # Then its dates are known
    assert (validity.not_before, validity.not_after) == (begin.timestamp(), end.timestamp())


def test_names_for_which_nothing_is_shown_are_left_out_and_cost_no_time(tmp_path: Path) -> None:
    # Given one server that shows a certificate, one that speaks no TLS, and one that is not there
    now = datetime.now(UTC).replace(microsecond=0)
    context = make_certificate(tmp_path, begin=now - timedelta(days=1), end=now + timedelta(days=1))
    with tls_server(context) as port, socket.create_server(("127.0.0.1", 0)) as mute:
        mute_port = mute.getsockname()[1]
        checks = [
            TlsCheck("127.0.0.1", port, "a"),
            TlsCheck("127.0.0.1", mute_port, "b"),
            TlsCheck("127.0.0.1", 9, "c"),
        ]
        began = time.monotonic()

        # When they are shown
        metrics = {metric.name: metric.samples for metric in Certificates(checks).collect()}

    # Then only the first is
    assert time.monotonic() - began < 8
    samples = metrics["inferenceserver_certificate_not_after_timestamp_seconds"]
    assert [sample.labels["name"] for sample in samples] == ["a"]


def test_nothing_is_shown_where_nothing_is_to_be_watched() -> None:
    assert list(Certificates(()).collect()) == []


def test_the_setting_names_addresses_and_names() -> None:
    settings = Settings.from_environment({"TLS_CHECKS": "proxy:8443/localhost, proxy:8443/a.example.org"})
    assert [(check.host, check.port, check.name) for check in settings.tls_checks] == [
        ("proxy", 8443, "localhost"),
        ("proxy", 8443, "a.example.org"),
    ]


@pytest.mark.parametrize("wrong", ["proxy:8443", "proxy/localhost", "proxy:0/localhost", "proxy:8443/a/b"])
def test_a_wrong_setting_names_its_variable(wrong: str) -> None:
    with pytest.raises(SettingsError, match="TLS_CHECKS"):
        Settings.from_environment({"TLS_CHECKS": wrong})
