"""A whole server with a broker and a TLS proxy's certificate to watch, each API in two processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.rig.api import Api
from tests.rig.certificates import make_certificate, tls_server
from tests.rig.fixtures import pytest_runtest_makereport, running_server
from tests.rig.parts import Part, worker_url
from tests.rig.ports import free_ports
from tests.rig.server import Server

__all__ = ["pytest_runtest_makereport"]


@dataclass(frozen=True)
class Watched:
    """The server, and where its consumer shows metrics."""

    server: Server
    consumer_url: str

    @property
    def urls(self) -> dict[str, str]:
        """Where each job of Prometheus would look."""
        return {
            "private_api": self.server.private_url,
            "public_api": self.server.url,
            "consumer": self.consumer_url,
        }


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory, rabbitmq: Part) -> Iterator[Watched]:
    now = datetime.now(UTC)
    begin, end = now - timedelta(days=1), now + timedelta(days=30)
    context = make_certificate(tmp_path_factory.mktemp("tls"), begin=begin, end=end)
    (port,) = free_ports(1)
    with (
        tls_server(context) as tls_port,
        running_server(
            tmp_path_factory.mktemp("watched"),
            slots=2,
            consumer={"BROKER_URL": worker_url(rabbitmq), "METRICS_BIND": f"127.0.0.1:{port}"},
            BROKER_URL=rabbitmq.url,
            PRIVATE_API_WORKERS="2",
            PUBLIC_API_WORKERS="2",
            TLS_CHECKS=f"127.0.0.1:{tls_port}/localhost",
        ) as server,
    ):
        yield Watched(server, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def admin(watched: Watched) -> Api:
    return watched.server.admin
