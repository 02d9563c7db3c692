"""The stack's secrets, made at its first start: one file each in `.state/secrets/`, for its owner only.

A password that is there is never made anew; what is derived from passwords (the broker's users, the store's
list of keys) is written again at every start. Containers get copies, in `.state/secrets/mounted/`, because a
file that is mounted keeps its owner: each copy belongs to the user of the container that reads it, and a
short-lived container makes them, so that nobody needs to be root here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from setup.console import SetupError
from setup.images import base_image
from setup.places import Places
from setup.stack import registry_credentials
from setup.stack.stack_settings import SERVICE_USER, Chosen

# An account and a user to our own store, an opaque name to any other.
STORE_ACCESS_KEY = "inferenceserver:server"
BROKER_USERS = ("server", "worker")
PASSWORDS: dict[str, Callable[[], str]] = {
    "database-password": lambda: secrets.token_urlsafe(32),
    # Letters and digits only: some stores' files know no quoting.
    "s3-secret-key": lambda: secrets.token_hex(32),
    "broker-server-password": lambda: secrets.token_urlsafe(32),
    "broker-worker-password": lambda: secrets.token_urlsafe(32),
    # By which the nodes of a broker of three know each other.
    "broker-cookie": lambda: secrets.token_hex(32),
    "grafana-password": lambda: secrets.token_urlsafe(32),
}
# The user of Grafana's own image.
_GRAFANA = (472, 0)
# Runs in a container of the base image: what it must do needs root, and nothing it handles is an argument.
_HAND_OVER = """
import json, os, pathlib, sys
folder = pathlib.Path("/secrets")
mounted = folder / "mounted"
mounted.mkdir(mode=0o700, exist_ok=True)
mounted.chmod(0o700)
# Compose wants to see that the files are there.
os.chown(mounted, folder.stat().st_uid, folder.stat().st_gid)
for name, owner in json.loads(sys.argv[1]).items():
    draft = mounted / (name + ".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    os.write(descriptor, (folder / name).read_bytes())
    os.fchown(descriptor, *owner)
    os.close(descriptor)
    draft.rename(mounted / name)
"""


def ensure(
    client: docker.DockerClient, places: Places, chosen: Chosen, environment: Mapping[str, str]
) -> None:
    """Make what is missing, and have a copy of everything for whoever reads it.

    Raises ``SetupError``, also for a file of credentials in ``environment`` that cannot be used.
    """
    credentials = registry_credentials.read(environment)
    folder = places.secrets
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    for file in (places.admin_key, places.worker_key):
        # Shared with the embedded server. 256 bits, marked as the private API marks its keys.
        write_once(file, f"isk_{secrets.token_urlsafe(32)}\n")
    for name, make in PASSWORDS.items():
        write_once(folder / name, make() + "\n")
    if credentials is not None:
        _replace(folder / registry_credentials.NAME, credentials)
    write_once(folder / registry_credentials.NAME, registry_credentials.EMPTY)
    for name, text in _derived(places).items():
        _replace(folder / name, text)
    uid, _, gid = SERVICE_USER.partition(":")
    names = (*PASSWORDS, *_derived(places), registry_credentials.NAME)
    owners = {name: (int(uid), int(gid)) for name in names}
    _hand_over(client, folder, {**owners, "s3.json": chosen.store_user, "grafana-password": _GRAFANA})


def _derived(places: Places) -> dict[str, str]:
    read = {name: (places.secrets / name).read_text().strip() for name in PASSWORDS}
    return {
        "s3-access-key": STORE_ACCESS_KEY + "\n",
        "s3.json": store_keys(read["s3-secret-key"]),
        "rabbitmq.json": broker_definitions({user: read[f"broker-{user}-password"] for user in BROKER_USERS}),
        "admin.key": places.admin_key.read_text(),
        "worker.key": places.worker_key.read_text(),
    }


def credentials_version(places: Places) -> str:
    """Changes with what consumers tell private registries."""
    text = (places.secrets / registry_credentials.NAME).read_text()
    return registry_credentials.fingerprint(text, places.worker_key.read_bytes())


def write_once(file: Path, text: str) -> None:
    """Make a file that only its owner may read, complete or not at all; one that is there stays as it is."""
    if file.exists():
        return
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.") as draft:
        draft.write(text)
        draft.flush()
        os.fsync(draft.fileno())
        # When another process was first, its file counts.
        with suppress(FileExistsError):
            os.link(draft.name, file)


def _replace(file: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(file)


def _hand_over(client: docker.DockerClient, folder: Path, owners: Mapping[str, tuple[int, int]]) -> None:
    try:
        client.containers.run(
            base_image.TAG,
            ["python", "-c", _HAND_OVER, json.dumps(owners)],
            user="0:0",
            remove=True,
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=["CHOWN", "DAC_OVERRIDE"],
            volumes={str(folder): {"bind": "/secrets", "mode": "rw"}},
        )
    except (DockerException, RequestException) as error:
        raise SetupError(f"The secrets in {folder} could not be given to the services: {error}") from error


def broker_definitions(passwords: dict[str, str]) -> str:
    """RabbitMQ's definitions: users by the hashes of their passwords, and what each may do.

    The worker's user may only read the two queues with work; all else belongs to the private API.
    Source of the format: RabbitMQ's "Definition Export and Import".
    """
    rights = {
        "server": {"configure": ".*", "write": ".*", "read": ".*"},
        "worker": {"configure": "^$", "write": "^$", "read": r"^tasks\.(cpu|gpu)$"},
    }
    document = {
        "vhosts": [{"name": "/"}],
        "users": [
            {
                "name": user,
                "password_hash": broker_hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                # Whoever is no administrator may not open the management interface, if one were there.
                "tags": "administrator" if user == "server" else "",
            }
            for user, password in passwords.items()
        ],
        "permissions": [{"user": user, "vhost": "/", **rights[user]} for user in passwords],
    }
    return json.dumps(document, indent=1) + "\n"


def broker_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256 of a password; the salt follows from it, so that it never changes."""
    salt = hashlib.sha256(b"inferenceserver broker salt\0" + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def store_keys(secret_key: str) -> str:
    """The store's list of who may do what."""
    credentials = [{"accessKey": STORE_ACCESS_KEY, "secretKey": secret_key}]
    identity = {"name": "server", "credentials": credentials, "actions": ["Admin"]}
    return json.dumps({"identities": [identity]}, indent=1) + "\n"
