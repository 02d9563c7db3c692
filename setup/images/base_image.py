"""The image that model_template and the examples build on: a small Debian with Python, whatever it takes.

The system below it is pulled; where no registry can be reached it is bootstrapped from Debian packages with
this machine's own sources. These and the machine's CA bundle go into the local image, never into the
repository; the READMEs of model_template and of the example say how to build on a public image instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import docker

from setup.console import SetupError, detail, say, step
from setup.engine import pulling
from setup.host import apt_sources
from setup.host.machine import Machine, apt_install, run_to_end
from setup.images import images
from setup.places import Places

TAG = "inferenceserver/python:3"
SYSTEM_TAG = "inferenceserver/system:latest"
PULLED = "debian:bookworm-slim"
CA_BUNDLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
SYSTEM_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Bootstrap(StrEnum):
    """What stands between this machine and bootstrapping a system."""

    READY = "ready"
    INSTALL = "install"  # mmdebstrap first.
    IMPOSSIBLE = "impossible"


def how_to_bootstrap(machine: Machine, *, has_mmdebstrap: bool, has_sources: bool) -> Bootstrap:
    """Whether a system can be bootstrapped here when none could be pulled."""
    if machine.system != "Linux" or not has_sources or not machine.is_root:
        return Bootstrap.IMPOSSIBLE
    if has_mmdebstrap:
        return Bootstrap.READY
    return Bootstrap.INSTALL if machine.can_install else Bootstrap.IMPOSSIBLE


def ensure(
    engine: docker.DockerClient, places: Places, machine: Machine, environment: Mapping[str, str]
) -> str:
    """The id of the base image, made if it is missing or this machine's CA bundle changed."""
    for name in images.withheld_credentials(environment):
        detail(f"builds get {name} without its user name and password, which an image's history would show")
    if images.image_id(engine, SYSTEM_TAG) is None:
        refusal = _pull_system(engine)
        if refusal:
            detail(f"no image could be pulled ({refusal})")
            _bootstrap_system(engine, machine)
    context = {
        "Dockerfile": (Path(__file__).parent / "python.Dockerfile").read_bytes(),
        "machine-ca.crt": machine_ca_bundle(environment),
    }
    recipe = images.Recipe(
        tag=TAG,
        title="the base image: Debian with Python",
        context=context,
        parent=SYSTEM_TAG,
        arguments={"SYSTEM": SYSTEM_TAG, **images.forwarded_settings(environment)},
    )
    return images.ensure(engine, recipe, places.logs / "build-python.log")


def machine_ca_bundle(environment: Mapping[str, str]) -> bytes:
    """The CA certificates that this machine trusts, PEM; empty when none are found."""
    named = [environment[name] for name in CA_BUNDLES if environment.get(name)]
    for path in map(Path, [*named, *SYSTEM_CA_BUNDLES]):
        if path.is_file():
            return path.read_bytes()
    return b""


def _pull_system(engine: docker.DockerClient) -> str:
    """Pull and tag the system; the reason why not, or nothing when it is there."""
    say(f"→ Pulling {PULLED} (given up after {pulling.SILENCE_SECONDS} s of silence)")
    refusal = pulling.pull(engine, PULLED)
    if not refusal:
        engine.images.get(PULLED).tag(*SYSTEM_TAG.split(":"))
    return refusal


def _bootstrap_system(engine: docker.DockerClient, machine: Machine) -> None:
    sources = apt_sources.choose(_read_apt_files(), machine.suite)
    if any("@" in urlsplit(source.uri).netloc for source in sources):
        raise SetupError(
            "A package source of this machine holds a user name or password, which the base image would "
            "show. Use a source that needs none, or tag a Debian image that you have "
            f"(docker tag IMAGE {SYSTEM_TAG}); then run this again."
        )
    has_mmdebstrap = shutil.which("mmdebstrap") is not None
    match how_to_bootstrap(machine, has_mmdebstrap=has_mmdebstrap, has_sources=bool(sources)):
        case Bootstrap.IMPOSSIBLE:
            raise SetupError(
                f"The image {PULLED} could not be pulled, and only root on Debian or Ubuntu may make one. "
                "Let the engine reach a registry, or tag a Debian image that you have "
                f"(docker tag IMAGE {SYSTEM_TAG}); then run this again."
            )
        case Bootstrap.INSTALL:
            apt_install(["mmdebstrap"], "it bootstraps the base image from Debian packages")
        case Bootstrap.READY:
            pass
    with (
        step(f"Bootstrapping {machine.distribution} {machine.suite} from this machine's package sources"),
        tempfile.TemporaryDirectory(prefix="inferenceserver-") as folder,
    ):
        packed = Path(folder) / "system.tar"
        _run_mmdebstrap(machine.suite, [source.line() for source in sources], packed)
        repository, tag = SYSTEM_TAG.split(":")
        engine.api.import_image_from_file(str(packed), repository=repository, tag=tag)


def _read_apt_files() -> dict[str, str]:
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *apt.glob("sources.list.d/*")]
    return {path.name: path.read_text(errors="replace") for path in files if path.is_file()}


def _run_mmdebstrap(suite: str, sources: list[str], packed: Path) -> None:
    # Documentation and translations are half of a small system, and no model reads them.
    unwanted = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"]
    command = [
        "mmdebstrap", "--variant=apt", "--include=ca-certificates", "--quiet",
        *[f"--dpkgopt=path-exclude={pattern}" for pattern in unwanted],
        suite, str(packed), *sources,
    ]  # fmt: skip
    done = run_to_end(command, os.environ)
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-8:])
        raise SetupError(f"mmdebstrap could not bootstrap {suite}:\n{last}")
