"""Fixtures: the real Caddy in front of stand-ins, or of the real public API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.proxy.running_proxy import Proxy, running_proxy
from tests.integration.proxy.stand_ins import serving
from tests.integration.public_api.public_api_processes import Upstream


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Proxy]]:
    """One pair for the tests of a module that stop nothing."""
    with (
        serving() as upstream,
        running_proxy(tmp_path_factory.mktemp("proxy"), f"127.0.0.1:{upstream.server_port}") as proxy,
    ):
        yield upstream, proxy


@pytest.fixture
def upstream(shared: tuple[Upstream, Proxy]) -> Upstream:
    """The shared stand-in, with nothing seen or scripted."""
    shared[0].seen.clear()
    shared[0].script.clear()
    return shared[0]


@pytest.fixture
def proxy(shared: tuple[Upstream, Proxy], upstream: Upstream) -> Proxy:
    return shared[1]


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Any]:
    """Starts a proxy of the test's own."""
    with ExitStack() as stack:

        def start(upstreams: str, **settings: Any) -> Proxy:
            return stack.enter_context(running_proxy(tmp_path, upstreams, **settings))

        yield start


@pytest.fixture
def own(start_proxy: Any) -> Any:
    """A proxy of the test's own in front of a stand-in."""
    with serving() as upstream:
        proxy = start_proxy(f"127.0.0.1:{upstream.server_port}")
        proxy.upstream = upstream
        yield proxy
