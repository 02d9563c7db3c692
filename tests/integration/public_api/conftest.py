"""Fixtures: the real public API in front of a stand-in for the private one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from public_api_processes import PublicApi, Upstream, running_public_api


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def start_public_api(upstream: Upstream, tmp_path: Path) -> Any:
    """Starts a public API with settings of the test's own: a context manager."""

    def start(**settings: str) -> Any:
        return running_public_api(upstream.url, tmp_path, **settings)

    return start


@pytest.fixture(scope="module")
def shared_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, PublicApi]]:
    """One pair for the tests of a module that need no settings."""
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        settings = {"PUBLIC_API_STALL_SECONDS": "2", "PUBLIC_API_FAILED_KEYS_PER_MINUTE": "1000"}
        try:
            with running_public_api(server.url, tmp_path_factory.mktemp("relay"), **settings) as api:
                yield server, api
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def stand_in(shared_processes: tuple[Upstream, PublicApi]) -> Upstream:
    """The shared stand-in, with nothing seen or scripted."""
    server = shared_processes[0]
    server.seen.clear()
    server.script.clear()
    return server


@pytest.fixture
def relay(shared_processes: tuple[Upstream, PublicApi], stand_in: Upstream) -> PublicApi:
    return shared_processes[1]
