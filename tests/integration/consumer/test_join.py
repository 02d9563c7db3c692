"""``python -m consumer join``: what it says where something is wrong, each in one line that helps."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.rig.certificates import make_certificate, tls_server
from tests.rig.processes import ROOT
from tests.rig.server import Server

WRONG_SETTING = 2
_MINE = ("PATH", "HOME", "LANG", "DOCKER_HOST")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Both APIs with workers let in from outside, and no consumer."""
    server = Server(tmp_path_factory.mktemp("server"), PUBLIC_API_WORKER_ROUTES="1")
    server.private_api.start()
    server.public_api.start()
    server.wait_until_ready()
    yield server
    assert server.stop() == []


@pytest.fixture
def key_file(server: Server, tmp_path: Path) -> Path:
    file = tmp_path / "worker.key"
    file.write_text(server.key("worker"))
    return file


def join(url: str, key_file: Path, *more: str, **variables: str) -> str:
    """What a ``join`` says that ends at once, with the status of a wrong setting."""
    command = [sys.executable, "-m", "consumer", "join", "--url", url, "--key-file", str(key_file), *more]
    mine = {name: os.environ[name] for name in _MINE if name in os.environ}
    done = subprocess.run(
        [*command, "--directory", str(key_file.parent / "consumer")],
        cwd=ROOT, env=mine | variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == WRONG_SETTING, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_name_that_nobody_knows(key_file: Path) -> None:
    said = join("https://no-such-host.invalid", key_file)
    assert "--url: the name no-such-host.invalid cannot be resolved" in said


def test_a_port_at_which_nobody_listens(key_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert f"--url: 127.0.0.1:{port} refuses connections" in join(f"https://127.0.0.1:{port}", key_file)


def test_a_server_that_does_not_speak_tls(server: Server, key_file: Path) -> None:
    said = join(server.url.replace("http:", "https:"), key_file)
    assert "does not speak TLS" in said


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, key_file: Path) -> None:
    now = datetime.now(UTC)
    context = make_certificate(tmp_path, begin=now - timedelta(days=1), end=now + timedelta(days=1))
    other = tmp_path / "other"
    other.mkdir()
    make_certificate(other, begin=now - timedelta(days=1), end=now + timedelta(days=1))
    with tls_server(context) as port:
        url = f"https://localhost:{port}"
        assert "signed it with --ca FILE" in join(url, key_file)
        said = join(url, key_file, "--ca", str(other / "ca.pem"))
        assert f"no authority in {other / 'ca.pem'} has signed it (--ca)" in said
        # Signed well, but for another name.
        said = join(f"https://127.0.0.1:{port}", key_file, "--ca", str(tmp_path / "ca.pem"))
        assert "the server's certificate is for another name than 127.0.0.1" in said


def test_a_certificate_that_is_over(tmp_path: Path, key_file: Path) -> None:
    now = datetime.now(UTC)
    context = make_certificate(tmp_path, begin=now - timedelta(days=3), end=now - timedelta(days=1))
    with tls_server(context) as port:
        said = join(f"https://localhost:{port}", key_file, "--ca", str(tmp_path / "ca.pem"))
    assert "certificate has expired" in said


def test_a_proxy_that_is_not_there(key_file: Path) -> None:
    said = join("https://inference.example.org", key_file, HTTPS_PROXY="http://127.0.0.1:9")
    assert "the HTTP proxy on the way (HTTPS_PROXY) does not lead to inference.example.org" in said


def test_a_key_that_is_wrong(server: Server, key_file: Path) -> None:
    key_file.write_text("isk_mistyped")
    said = join(server.url, key_file)
    assert f"--key-file: the server does not know the key in {key_file}" in said
    assert "mistyped" in said
    assert "isk_" not in said


def test_a_key_of_somebody_who_is_no_worker(server: Server, key_file: Path) -> None:
    key_file.write_text(server.key("admin"))
    assert "holds a key with the role admin; ask an admin for a worker's" in join(server.url, key_file)


def test_a_server_that_lets_nobody_in_from_outside(server: Server, key_file: Path) -> None:
    server.public_api.stop()
    server.public_api.start(PUBLIC_API_WORKER_ROUTES="0")
    server.wait_until_ready()
    try:
        assert "PUBLIC_API_WORKER_ROUTES=1" in join(server.url, key_file)
    finally:
        server.public_api.stop()
        server.public_api.start()
        server.wait_until_ready()


def test_a_server_that_is_another(key_file: Path) -> None:
    other = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        said = join(f"http://127.0.0.1:{other.server_port}", key_file)
        assert "does not answer as this server would" in said
    finally:
        other.shutdown()
        other.server_close()
        thread.join(5)


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ((), {"BROKER_URL": "amqp://w@rabbitmq:5672/%2F"}, "BROKER_URL and --url are both set"),
        (("--ca", "/no/such/file"), {}, "--ca: /no/such/file cannot be used: No such file"),
        (("--name", "a b"), {}, "--name must be 1 to 63"),
        (("--gpus", "7"), {}, "--gpus must be auto, none"),
        (("--label", "site"), {}, "--label must look like"),
        (("--cpu-slots", "-1"), {}, "--cpu-slots must lie between"),
    ],
)
def test_an_option_that_is_wrong_is_named_as_it_was_typed(
    key_file: Path, arguments: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    assert said in join("https://inference.example.org", key_file, *arguments, **variables)


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.key"
    assert f"--key-file: there is no file {missing}" in join("https://inference.example.org", missing)


def test_the_help_has_examples() -> None:
    command = [sys.executable, "-m", "consumer", "join", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "python -m consumer join --url https://" in done.stdout
    assert "infer keys add" in done.stdout
