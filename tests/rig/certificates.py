"""A TLS server with a certificate of any dates, for tests of whoever looks at certificates."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path


def make_certificate(directory: Path, *, begin: datetime, end: datetime) -> ssl.SSLContext:
    """A server's context with a certificate signed by an authority that nobody knows."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    form = "%Y%m%d%H%M%SZ"
    config = directory / "ca.cnf"
    (directory / "index.txt").touch()
    (directory / "serial").write_text("01\n")
    config.write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndir={directory}\ndatabase=$dir/index.txt\nserial=$dir/serial\n"
        f"new_certs_dir=$dir\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", directory / "ca.pem", "-subj", "/CN=somebody", "-days", "3650"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "req", "-new", "-key", key, "-subj", "/CN=localhost", "-out", directory / "request.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(
        ["openssl", "ca", "-batch", "-config", config, "-in", directory / "request.pem", "-out", certificate,
         "-cert", directory / "ca.pem", "-keyfile", key, "-notext",
         "-startdate", begin.strftime(form), "-enddate", end.strftime(form)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """A server that shakes hands and closes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as sock:
                        sock.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
