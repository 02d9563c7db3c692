from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inference_server_client import Client, RetryPolicy
from inference_server_client.cli.app import main
from native_api_records import KEY
from native_api_stub import NativeApiStub

QUICK = RetryPolicy(attempts=4, first_delay_seconds=0.01)


@pytest.fixture
def stub() -> Iterator[NativeApiStub]:
    with NativeApiStub() as server:
        yield server


@pytest.fixture
def client(stub: NativeApiStub) -> Iterator[Client]:
    with Client(stub.url, KEY, retry=QUICK) as connected:
        yield connected


@pytest.fixture
def infer(stub: NativeApiStub, tmp_path: Path) -> Callable[..., int]:
    """Runs the command in this process against the stub; returns the exit status."""
    usual = {"INFER_SERVER": stub.url, "INFER_KEY": KEY, "INFER_CONFIG_DIR": str(tmp_path / "config")}

    def run(*arguments: str | Path, **environment: str) -> int:
        return main([str(a) for a in arguments], usual | environment)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    directory = tmp_path / "pictures"
    (directory / "deep").mkdir(parents=True)
    (directory / "b.txt").write_bytes(b"bee\n")
    (directory / "deep" / "a.txt").write_bytes(b"aye\n")
    return directory
