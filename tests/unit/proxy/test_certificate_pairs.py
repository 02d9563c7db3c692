"""A certificate and its key, looked at before Caddy does."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.certificates import CertificateError, examine_pair

NAMES = "DNS:server.example,DNS:*.server.example,IP:10.0.0.5"


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def make(directory: Path, stem: str, *more: str, kind: str = "rsa:2048", names: str | None = NAMES) -> None:
    alternative = ["-addext", f"subjectAltName={names}"] if names else []
    openssl(
        "req", "-x509", "-newkey", kind, "-nodes", "-keyout", f"{directory}/{stem}.key", "-out",
        f"{directory}/{stem}.crt", "-days", "100", "-subj", "/CN=server.example", *alternative, *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pairs")
    make(directory, "good")
    make(directory, "other")
    make(directory, "curve", "-pkeyopt", "ec_paramgen_curve:P-256", kind="ec")
    make(directory, "weak", kind="rsa:1024")
    make(directory, "nameless", names=None)
    make(directory, "client", "-addext", "extendedKeyUsage=clientAuth")
    openssl(
        "rsa",
        "-aes128",
        "-passout",
        "pass:x",
        "-in",
        f"{directory}/good.key",
        "-out",
        f"{directory}/locked.key",
    )
    openssl("x509", "-in", f"{directory}/good.crt", "-outform", "der", "-out", f"{directory}/der.crt")
    (directory / "junk").write_text("junk\n")
    (directory / "cut.crt").write_text((directory / "good.crt").read_text()[:300])
    (directory / "huge.crt").write_bytes(bytes(300_000))
    chain = (directory / "good.crt").read_text() + (directory / "other.crt").read_text()
    (directory / "chain.crt").write_text(chain)
    return directory


@pytest.mark.parametrize("name", ["server.example", "a.server.example", "*.server.example", "10.0.0.5"])
@pytest.mark.parametrize(("certificate", "key"), [("good", "good"), ("chain", "good"), ("curve", "curve")])
def test_a_pair_that_belongs_together_is_described(
    pairs: Path, certificate: str, key: str, name: str
) -> None:
    # when
    facts = examine_pair(pairs / f"{certificate}.crt", pairs / f"{key}.key", name)

    # then
    assert facts.names == ("server.example", "*.server.example", "10.0.0.5")
    assert facts.issuer == "server.example"
    assert facts.days_left(datetime.now(UTC)) == 99
    assert len(facts.fingerprint) == 64


@pytest.mark.parametrize(
    ("certificate", "key", "name", "words"),
    [
        ("good.crt", "good.key", "else.example", "is for server.example, .*, not for else.example"),
        ("good.crt", "good.key", "a.b.server.example", "not for a.b.server.example"),
        ("good.crt", "good.key", "10.0.0.6", "not for 10.0.0.6"),
        ("nameless.crt", "nameless.key", "server.example", "is for no name at all"),
        ("good.crt", "other.key", "server.example", r"other.key is not the key of .*good.crt"),
        ("good.crt", "curve.key", "server.example", r"curve.key is not the key of .*good.crt"),
        ("good.crt", "locked.key", "server.example", "encrypted"),
        ("weak.crt", "weak.key", "server.example", "too small"),
        ("client.crt", "client.key", "server.example", "cannot serve HTTPS: unsuitable certificate purpose"),
        ("der.crt", "good.key", "server.example", "der.crt holds no certificate in PEM form"),
        ("good.key", "good.key", "server.example", "good.key holds no certificate in PEM form"),
        ("good.crt", "good.crt", "server.example", "good.crt holds no private key in PEM form"),
        ("junk", "good.key", "server.example", "junk holds no certificate in PEM form"),
        ("cut.crt", "good.key", "server.example", "cannot be used"),
        ("huge.crt", "good.key", "server.example", "too large"),
        ("none.crt", "good.key", "server.example", "none.crt cannot be read: No such file"),
        ("good.crt", "none.key", "server.example", "none.key cannot be read: No such file"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused_in_words(
    pairs: Path, certificate: str, key: str, name: str, words: str
) -> None:
    with pytest.raises(CertificateError, match=words) as caught:
        examine_pair(pairs / certificate, pairs / key, name)
    assert "\n" not in str(caught.value)
