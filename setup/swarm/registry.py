"""The registry that the stack brings along: `make registry-up`, for a Swarm whose machines reach no other.

It runs on the stack's home and serves over TLS, with a certificate of an authority of its own, and it is
read-only: whoever reaches it can fetch and nobody can put. What it serves is put in through a second
container, on a loopback port that is open only meanwhile.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import docker
import urllib3
from docker.errors import APIError, ContainerError, DockerException, NotFound
from requests.exceptions import RequestException

from setup.console import SetupError, detail, say, step
from setup.images import base_image, part_images
from setup.images.part_images import PartImage
from setup.places import Places
from setup.stack import stack_settings
from setup.stack.stack_settings import SERVICE_USER
from setup.swarm import release
from setup.swarm.encryption import error_words
from setup.swarm.membership import look, reached
from setup.swarm.settings import SwarmChosen

IMAGE = PartImage("registry", "the image registry", base_image.SYSTEM_TAG, "SYSTEM")
DEFAULT_PORT = "5000"
READY_SECONDS = 30
_DATA = "/var/lib/registry"


def remembered(places: Places) -> dict[str, str]:
    """The setting that leads `make swarm-init` to the registry; empty where `make registry-up` made none."""
    try:
        address = (places.registry / "address").read_text().strip()
    except FileNotFoundError:
        return {}
    return {"REGISTRY": address}


def up(places: Places) -> None:
    """Certificates, the registry, the release's consumer and the images that PUSH names, the join script."""
    with reached(places) as (client, host, this_machine):
        address = _address(client, os.environ)
        base_image.ensure(client, places, this_machine, os.environ)
        part_images.ensure_one(client, places, os.environ, IMAGE)
        with step("Making the registry's certificate"):
            _make_certificates(client, places, address.rpartition(":")[0])
        with step(f"Starting the registry at {address}"):
            _serve(client, places, address)
            _wait_until_it_answers(places, address)
        # This machine pushes over the loopback, but pulls as all others do.
        (places.registry / "join.sh").write_text(_join_script(places, address))
        (places.registry / "address").write_text(address + "\n")
        for image in shlex.split(os.environ.get("PUSH", "")):
            with step(f"Pushing {image}"):
                detail(push(client, host, places, address, image))
    script = places.shown(places.registry / "join.sh")
    say(f"""
The registry serves at {address}. `make swarm-init` pushes to it what machines run. On every machine,
once, with a copy of the file (it holds no secret):

  sudo sh {script}

Models' images go the same way: make registry-up PUSH='my-model:1', then register {address}/my-model:1.
""")


def _address(client: docker.DockerClient, environment: Mapping[str, str]) -> str:
    host = environment.get("ADVERTISE") or look(client).address
    if not host:
        raise SetupError("Name the address at which other machines reach this one with ADVERTISE=.")
    port = stack_settings.read_port("REGISTRY_PORT", environment.get("REGISTRY_PORT") or DEFAULT_PORT)
    return f"{host}:{port}"


def _make_certificates(client: docker.DockerClient, places: Places, host: str) -> None:
    folder = places.registry
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        client.containers.run(
            IMAGE.tag,
            ["certificates", host],
            remove=True,
            network_mode="none",
            user="0:0",
            cap_drop=["ALL"],
            cap_add=["CHOWN", "DAC_OVERRIDE"],
            volumes={str(folder): {"bind": "/certificates", "mode": "rw"}},
        )
    except ContainerError as error:
        words = error_words(error)
        raise SetupError(f"The registry's certificate could not be made: {words[-300:]}") from error


def _serve(client: docker.DockerClient, places: Places, address: str) -> None:
    host, _, port = address.rpartition(":")
    with _begun(
        client,
        places,
        "read-only",
        name=_name(places),
        restart_policy={"Name": "unless-stopped"},
        ports={"5000/tcp": (host, int(port))},
        volumes={
            _name(places): {"bind": _DATA, "mode": "rw"},
            str(places.registry / "tls"): {"bind": "/run/tls", "mode": "ro"},
        },
        keep=True,
    ):
        pass


@contextmanager
def _begun(
    client: docker.DockerClient, places: Places, how: str, *, name: str, keep: bool = False, **options: Any
) -> Iterator[Any]:
    """A container of the registry, in place of one of the same name; it goes in the end unless ``keep``."""
    _remove(client, name)
    container = None
    try:
        container = client.containers.run(
            IMAGE.tag,
            [how],
            name=name,
            detach=True,
            user=SERVICE_USER,
            init=True,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            tmpfs={"/tmp": "size=64m,mode=1777"},  # noqa: S108 - The container's own.
            mem_limit="512m",
            pids_limit=256,
            labels={"org.inferenceserver.registry": places.installation()},
            **options,
        )
        yield container
    except (DockerException, RequestException) as error:
        words = error.explanation if isinstance(error, APIError) else str(error)
        raise SetupError(f"The registry could not be started: {words}") from error
    finally:
        if not keep:
            _remove(client, name)


def _remove(client: docker.DockerClient, name: str) -> None:
    with suppress(NotFound):
        client.containers.get(name).remove(force=True)


def _name(places: Places) -> str:
    """Of the container and of the volume with what it serves."""
    return f"inferenceserver-{places.installation()}-registry"


def _wait_until_it_answers(places: Places, address: str) -> None:
    host, _, port = address.rpartition(":")
    pool = urllib3.HTTPSConnectionPool(
        host, int(port), ca_certs=str(places.registry / "ca.crt"), timeout=5, retries=False
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if pool.request("GET", "/v2/").status == 200:
                return
            said = "not with 200"
        except urllib3.exceptions.HTTPError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise SetupError(f"The registry does not answer at {address} within {READY_SECONDS} s: {said}")
        time.sleep(0.2)


def _join_script(places: Places, address: str) -> str:
    template = (places.checkout / "swarm" / "join.sh").read_text()
    certificate = (places.registry / "ca.crt").read_text().strip()
    return template.replace("@REGISTRY@", address).replace("@CERTIFICATE@", certificate)


def is_ours(places: Places, address: str) -> bool:
    """Whether that is the registry of `make registry-up`."""
    return bool(address) and remembered(places).get("REGISTRY") == address


def push(client: docker.DockerClient, host: str, places: Places, address: str, image: str) -> str:
    """Put an image into our own registry; its name there with the digest."""
    with _begun(
        client,
        places,
        "writable",
        name=f"{_name(places)}-push",
        ports={"5000/tcp": ("127.0.0.1", None)},
        volumes={_name(places): {"bind": _DATA, "mode": "rw"}},
    ) as container:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            container.reload()
            bound = (container.ports or {}).get("5000/tcp")
            if bound and _listens(int(bound[0]["HostPort"])):
                return release.push(client, host, image, address, via=f"127.0.0.1:{bound[0]['HostPort']}")
            if time.monotonic() > deadline:
                raise SetupError(
                    f"The registry takes nothing: {container.logs(tail=5).decode(errors='replace').strip()}"
                )
            time.sleep(0.1)


def _listens(port: int) -> bool:
    try:
        # Not by its port alone, behind which the engine's own proxy listens at once.
        return (
            urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=2, retries=False)
            .request("GET", "/v2/")
            .status
            == 200
        )
    except urllib3.exceptions.HTTPError:
        return False


def down(client: docker.DockerClient, places: Places) -> None:
    """Remove the registry, its data and its certificates, if there is one."""
    _remove(client, _name(places))
    with suppress(NotFound):
        client.volumes.get(_name(places)).remove()
    if places.registry.exists():
        # The certificates belong to other users.
        client.containers.run(
            IMAGE.tag, ["-c", "rm -rf /certificates/*"], entrypoint="sh", user="0:0", remove=True,
            network_mode="none", volumes={str(places.registry): {"bind": "/certificates", "mode": "rw"}},
        )  # fmt: skip
        places.registry.rmdir()


def advice(places: Places, chosen: SwarmChosen) -> str:
    """What a machine needs before it can fetch from the registry."""
    if not is_ours(places, chosen.registry):
        return f"Its engine must trust {chosen.registry}.\n"
    return (
        "Its engine must trust the registry first:\n\n"
        f"  sudo sh {places.shown(places.registry / 'join.sh')}\n\n"
        "with a copy of that file, which holds no secret.\n"
    )
