"""Writes the store's configuration and becomes its supervisor.

The keys come from a file, never from the environment.
The file is the one that the upstream store reads:
``{"identities": [{"name": …, "credentials": [{"accessKey": "ACCOUNT:USER", "secretKey": …}], …}]}``.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

import configuration

DATA = Path("/data")
RUN = Path("/run/swift")


def main() -> None:
    """Prepare, then become the supervisor."""
    os.umask(0o077)
    # Not argparse: the upstream store's flags have one dash and dots, and most of them mean nothing here.
    given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
    port, keys = int(given.get("s3.port", "8333")), Path(given.get("s3.config", "/run/secrets/s3.json"))
    RUN.mkdir(exist_ok=True)
    (DATA / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (RUN / "swift.conf").write_text(_cluster(DATA / "swift.conf"))
    (RUN / "proxy.conf").write_text(configuration.proxy_server(port, read_keys(keys)))
    for kind in ("object", "container", "account"):
        (RUN / f"{kind}.conf").write_text(configuration.storage_server(kind))
    (RUN / "supervisord.conf").write_text(configuration.supervisor())
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"  # All addresses are numbers here.
    command = ["supervisord", "--configuration", str(RUN / "supervisord.conf")]
    os.execvp(command[0], command)  # noqa: S606 - The image's own; there is no input in it.


def read_keys(file: Path) -> dict[str, str]:
    """The secret keys by access key; ends the start with one line when the file cannot be used."""
    try:
        found = {
            pair["accessKey"]: pair["secretKey"]
            for identity in json.loads(file.read_text())["identities"]
            for pair in identity["credentials"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"s3: {file} cannot be used: {type(error).__name__}: {error}")
    for access, secret in found.items():
        if access.count(":") != 1 or not all(access.split(":")) or "_" in access or not secret.isalnum():
            sys.exit(
                f"s3: {file}: an access key must be ACCOUNT:USER without underscores, its secret letters "
                "and digits"
            )
    return found


def _cluster(file: Path) -> str:
    """The cluster's hash secret, made by the first start: with another one, no object is found again."""
    if not file.exists():
        draft = file.with_suffix(".draft")
        draft.write_text(
            f"[swift-hash]\nswift_hash_path_prefix = {secrets.token_hex(16)}\n"
            f"swift_hash_path_suffix = {secrets.token_hex(16)}\n"
        )
        draft.rename(file)
    return file.read_text()


if __name__ == "__main__":
    main()
