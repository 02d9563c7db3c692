"""``infer`` over TLS, against a server whose certificate a private CA has signed."""

from __future__ import annotations

import io
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from inference_server_client import Client
from inference_server_client.cli.app import main
from native_api_records import KEY, Fault, zip_of
from native_api_stub import NativeApiStub


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA of our own, and a certificate of its for localhost."""
    here = tmp_path_factory.mktemp("authority")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl(here, "req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
            "-subj", "/CN=A private CA", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip
    openssl(here, "req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (here / "extensions").write_text("subjectAltName=DNS:localhost\n")
    openssl(here, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "server.crt", "-days", "2", "-extfile", "extensions")  # fmt: skip
    return here


@pytest.fixture
def encrypted(authority: Path) -> Iterator[NativeApiStub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.crt", authority / "server.key")
    with NativeApiStub(context) as stub:
        yield stub


def infer(config: Path, *arguments: str | Path, **environment: str) -> int:
    return main(
        [str(a) for a in arguments], {"INFER_CONFIG_DIR": str(config), "INFER_KEY": KEY, **environment}
    )


def test_the_named_certificates_are_trusted(
    encrypted: NativeApiStub, authority: Path, tmp_path: Path, capsys
):
    ca_cert = authority / "ca.crt"
    assert infer(tmp_path, "models", "list", "--server", encrypted.url, "--ca-cert", ca_cert) == 0
    assert infer(tmp_path, "models", "list", INFER_SERVER=encrypted.url, INFER_CA_CERT=str(ca_cert)) == 0
    picture = tmp_path / "p.txt"
    picture.write_text("p")
    out = tmp_path / "out"
    assert (
        infer(tmp_path, "run", "echo", picture, "-o", out, "--server", encrypted.url, "--ca-cert", ca_cert)
        == 0
    )
    assert (out / "out.txt").read_text() == "done\n"
    assert "without encryption" not in capsys.readouterr().err


def test_a_certificate_of_an_unknown_ca_is_refused_and_no_key_is_sent(
    encrypted: NativeApiStub, authority: Path, tmp_path: Path, capsys
):
    assert infer(tmp_path, "models", "list", "--server", encrypted.url) == 3
    assert "--ca-cert" in capsys.readouterr().err
    # Nor is another name's: the certificate says localhost.
    elsewhere = encrypted.url.replace("localhost", "127.0.0.1")
    ca_cert = authority / "ca.crt"
    assert infer(tmp_path, "models", "list", "--server", elsewhere, "--ca-cert", ca_cert) == 3
    assert encrypted.requests == []


def test_a_login_keeps_the_certificates_with_the_key(
    encrypted: NativeApiStub, authority: Path, tmp_path: Path, monkeypatch
):
    key = tmp_path / "key"
    key.write_text(KEY)
    monkeypatch.chdir(authority)
    assert infer(tmp_path, "login", encrypted.url, "--ca-cert", "ca.crt", "--key-file", key) == 0
    monkeypatch.chdir("/")
    assert main(["models", "list"], {"INFER_CONFIG_DIR": str(tmp_path)}) == 0


def test_certificates_that_are_not_there_are_named(encrypted: NativeApiStub, tmp_path: Path, capsys):
    assert infer(tmp_path, "models", "list", "--server", encrypted.url, "--ca-cert", tmp_path / "no.crt") == 2
    assert "no.crt does not exist" in capsys.readouterr().err
    # A file without a certificate in it trusts nobody.
    empty = tmp_path / "empty.crt"
    empty.write_text("")
    assert infer(tmp_path, "models", "list", "--server", encrypted.url, "--ca-cert", empty) == 3
    assert encrypted.requests == []


def test_the_named_certificates_hold_for_the_store_too_whatever_the_environment_names(
    encrypted: NativeApiStub, authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv("no_proxy", "*")
    encrypted.faults.append(Fault("GET .*/output", "307", headers={"Location": f"{encrypted.url}/store/key"}))
    with Client(encrypted.url, KEY, ca_cert=authority / "ca.crt") as client:
        task = client.tasks.get(client.tasks.submit("echo", io.BytesIO(zip_of({"in.txt": b"x"}))).id)
        # when
        client.tasks.download_output(task, tmp_path / "output.zip")
    # then
    assert len(encrypted.seen("GET", "/store/key")) == 1
