"""Certificates made on the spot, handed to the proxy, and seen again from outside."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

from proxy.certificates import CertificateFacts, served_certificate
from tests.integration.proxy.running_proxy import Proxy


def make_pair(directory: Path, name: str, *, days: int = 300, stem: str = "own") -> tuple[Path, Path]:
    """A certificate for ``name``, signed by itself, and its key; -1 days for one that has expired."""
    certificate, key, request = (directory / f"{stem}.{end}" for end in ("crt", "key", "csr"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(key)]
    subject = ["-subj", f"/CN={stem}", "-addext", f"subjectAltName={name}"]
    signing = ["-signkey", str(key), "-days", str(days), "-copy_extensions", "copy", "-out", str(certificate)]
    for command in (
        ["openssl", "req", "-new", *curve, *subject, "-out", str(request)],
        ["openssl", "x509", "-req", "-in", str(request), *signing],
    ):
        subprocess.run(command, check=True, capture_output=True)
    key.chmod(0o600)
    return certificate, key


def served(proxy: Proxy, name: str) -> CertificateFacts:
    return served_certificate(f"127.0.0.1:{proxy.https_port}", name)


def add_files(proxy: Proxy, name: str, pair: tuple[Path, Path], *more: str, **arguments: Any) -> Any:
    words = ["--tls", "files", "--certificate", str(pair[0]), "--key", str(pair[1])]
    return proxy.command("domains", "add", name, *words, *more, **arguments)


def can_be_asked(proxy: Proxy, name: str) -> bool:
    try:
        return proxy.get("/v1/models", name=name).status == 200
    except ssl.SSLError:
        return False
