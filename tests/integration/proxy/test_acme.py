"""ACME without the internet: a second Caddy is the authority, and checks the domain as a public one would."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from proxy.certificates import CertificateError, CertificateFacts, served_certificate
from tests.integration.proxy.running_proxy import IMAGE, running_proxy
from tests.rig.parts import LABEL
from tests.rig.polling import eventually

DOMAIN = "server.example"
AUTHORITY = "ca.example"
AUTHORITY_CONFIG = {
    "admin": {"disabled": True},
    "apps": {
        "http": {
            "servers": {
                "acme": {
                    "listen": [":443"],
                    "automatic_https": {"disable_redirects": True},
                    "tls_connection_policies": [{}],
                    "routes": [{"handle": [{"handler": "acme_server", "ca": "local"}]}],
                }
            }
        },
        "pki": {"certificate_authorities": {"local": {"name": "Test ACME", "install_trust": False}}},
        "tls": {
            "certificates": {"automate": [AUTHORITY]},
            "automation": {"policies": [{"subjects": [AUTHORITY], "issuers": [{"module": "internal"}]}]},
        },
    },
}


@pytest.fixture
def network() -> Iterator[Any]:
    client = docker.from_env()
    network = client.networks.create(
        f"proxy-test-{secrets.token_hex(4)}-acme", internal=True, labels={LABEL: "1"}
    )
    yield network
    network.reload()
    for container in network.containers:
        container.remove(force=True, v=True)
    network.remove()
    client.close()


def caddy(network: Any, alias: str, directory: Path, config: Path) -> Any:
    """A Caddy known as ``alias`` that starts when ``config`` is there; its data lie in ``directory``."""
    directory.mkdir(exist_ok=True)
    container = network.client.containers.create(
        IMAGE,
        ["sh", "-c", f"until test -s {config}; do sleep 0.1; done; exec caddy run --config {config}"],
        user=f"{os.getuid()}:{os.getgid()}",
        network=None,
        volumes={
            str(directory): {"bind": "/data", "mode": "rw"},
            str(config.parent): {"bind": str(config.parent), "mode": "ro"},
        },
        labels={LABEL: "1"},
    )
    network.client.networks.get("bridge").disconnect(container)
    network.connect(container, aliases=[alias])
    container.start()
    container.reload()
    return container


def address_of(container: Any, network: Any) -> str:
    return str(container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"])


def test_a_domain_gets_its_certificate_by_acme(network: Any, tmp_path: Path) -> None:
    # given an authority
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca/caddy.json").write_text(json.dumps(AUTHORITY_CONFIG))
    authority = caddy(network, AUTHORITY, tmp_path / "ca-data", tmp_path / "ca/caddy.json")
    root = tmp_path / "ca-data/caddy/pki/authorities/local/root.crt"
    eventually(root.exists, 20, "the authority has its root")

    # and a proxy that the domain leads to
    (tmp_path / "proxy").mkdir()
    state = tmp_path / "proxy/state"
    with running_proxy(
        tmp_path / "proxy", "127.0.0.1:1", start=False, PROXY_HTTPS_BIND=":443", PROXY_HTTP_BIND=":80",
        HTTPS_PORT="443", PROXY_ACME_CA=f"https://{AUTHORITY}/acme/local/directory",
        PROXY_ACME_CA_ROOT=str(state / "acme-root.crt"),
    ) as proxy:  # fmt: skip
        (state / "caddy.json").unlink()
        (state / "acme-root.crt").write_text(root.read_text())
        container = caddy(network, DOMAIN, tmp_path / "proxy/data", state / "caddy.json")
        address = address_of(container, network)
        proxy.environment["PROXY_ADMIN_API"] = f"{address}:2019"
        proxy.command("render")
        eventually(lambda: "localhost" in names_at(address, "localhost"), 20, "the proxy serves")

        # when
        added = proxy.command("domains", "add", DOMAIN, "--tls", "acme", "--email", "admin@server.example")

        # then
        assert "asks for a certificate now" in added.stdout
        try:
            facts = eventually(lambda: certificate_at(address, DOMAIN), 40, "it has its certificate")
        except AssertionError:
            print(container.logs(tail=30).decode(), authority.logs(tail=30).decode())
            raise
        assert facts.names == (DOMAIN,)
        assert facts.issuer.startswith("Test ACME")
        assert DOMAIN in proxy.command("domains", "list").stdout


def certificate_at(address: str, name: str) -> CertificateFacts | None:
    try:
        return served_certificate(f"{address}:443", name)
    except CertificateError:
        return None


def names_at(address: str, name: str) -> tuple[str, ...]:
    facts = certificate_at(address, name)
    return () if facts is None else facts.names
