"""How long the certificates last that the TLS proxy shows, for the metrics: asked as any client would see it.

Whether they are good is every client's own business; here only their dates count.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_CONNECT_SECONDS = 2.0
_KEEP_SECONDS = 60.0
# OpenSSL's X509_V_FLAG_NO_CHECK_TIME: an expired certificate is to be read like any other.
_NO_TIME_CHECK = 0x200000


@dataclass(frozen=True)
class TlsCheck:
    """Where to look, and the name to ask for."""

    host: str
    port: int
    name: str


@dataclass(frozen=True)
class Validity:
    """From when until when, in seconds since 1970."""

    not_before: float
    not_after: float


def shown_validity(check: TlsCheck) -> Validity:
    """The dates of the certificate that is shown for the name; raises ``OSError`` where there is none."""
    anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    _, der = _shown(check, anyone)
    # Only a certificate that was verified is decoded: a second look trusts just the one that was seen.
    this_one = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    this_one.check_hostname = False
    this_one.verify_flags = ssl.VerifyFlags(_NO_TIME_CHECK) | ssl.VERIFY_X509_PARTIAL_CHAIN
    this_one.load_verify_locations(cadata=der)
    decoded, _ = _shown(check, this_one)
    return Validity(
        ssl.cert_time_to_seconds(decoded["notBefore"]), ssl.cert_time_to_seconds(decoded["notAfter"])
    )


class Certificates(Collector):
    """What is shown for each check, looked at once a minute at most."""

    def __init__(self, checks: Iterable[TlsCheck]) -> None:
        self._checks = tuple(checks)
        self._lock = threading.Lock()
        self._seen: dict[str, Validity] = {}
        self._looked_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """The dates by name; a name for which nothing is shown is left out."""
        if not self._checks:
            return
        labels = ["name"]
        begin = GaugeMetricFamily(
            "inferenceserver_certificate_not_before_timestamp_seconds",
            "When the certificate that the proxy shows for a name began to be valid.",
            labels=labels,
        )
        end = GaugeMetricFamily(
            "inferenceserver_certificate_not_after_timestamp_seconds",
            "When the certificate that the proxy shows for a name expires.",
            labels=labels,
        )
        for name, validity in self._look().items():
            begin.add_metric([name], validity.not_before)
            end.add_metric([name], validity.not_after)
        yield begin
        yield end

    def _look(self) -> dict[str, Validity]:
        with self._lock:
            now = time.monotonic()
            if self._looked_at is None or now - self._looked_at > _KEEP_SECONDS:
                self._looked_at = now
                self._seen = {}
                for check in self._checks:
                    try:
                        self._seen[check.name] = shown_validity(check)
                    except OSError:
                        continue
            return self._seen


def _shown(check: TlsCheck, context: ssl.SSLContext) -> tuple[Any, bytes]:
    with (
        socket.create_connection((check.host, check.port), timeout=_CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=check.name) as sock,
    ):
        return sock.getpeercert(), sock.getpeercert(binary_form=True) or b""
