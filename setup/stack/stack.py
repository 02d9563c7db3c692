"""Bring the full stack up, take it down, and say how it is: `make stack-up`, `stack-down` and `stack-status`.

Compose starts the containers; this module prepares what they need, waits until each is healthy, and explains
what keeps one from it. A stack that was interrupted at any point is where the next `make stack-up` goes on.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tarfile
import time
from collections.abc import Mapping
from dataclasses import replace

import docker
import urllib3
from docker.errors import APIError

from setup.console import SetupError, detail, say, step
from setup.engine import engine, leftovers
from setup.host import machine, ports
from setup.host.machine import Machine
from setup.images import service_images
from setup.places import Places
from setup.stack import compose, stack_files, stack_images, stack_secrets, stack_settings, stack_watch
from setup.stack.compose import Compose
from setup.stack.stack_settings import Chosen

ROOT_CERTIFICATE = "/data/caddy/pki/authorities/local/root.crt"
# Profiles whose services may run beside the stack's own; all are taken down with it.
PROFILES = "admin,monitoring"
# What a broker of three nodes adds.
FILES = ("compose.yaml", "compose.brokers.yaml")
READY_SECONDS = 60
DRAIN_SECONDS = 60


def up(places: Places) -> None:
    """Everything from an engine to an answer over TLS; a second run finds nearly all of it done."""
    started = time.monotonic()
    places.make()
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    words = compose.find(this_machine)
    client = engine.connect(host)
    try:
        chosen = prepare(client, places, this_machine, host, os.environ)
        bring_up(client, places, chosen, _compose(words, places, chosen, host))
    finally:
        client.close()
    say(f"\nThe stack is up after {time.monotonic() - started:.1f} s.")
    say(farewell(chosen, places))


def prepare(
    client: docker.DockerClient,
    places: Places,
    this_machine: Machine,
    host: str,
    environment: Mapping[str, str],
) -> Chosen:
    """Settings, images, secrets and configuration files, all in their places; nothing is started."""
    remembered = recall(places)
    installation = places.installation()
    project = f"inferenceserver-{installation}"
    source = stack_images.choose_source(client, project, environment, remembered)
    chosen = stack_settings.choose(
        environment,
        remembered,
        installation=installation,
        state=str(places.state),
        docker_socket=socket_of(host, this_machine),
        source=source,
        version=service_images.read_version(places.checkout),
    )
    # Before anything is built: this is where a mistake is noticed soonest.
    _require_ports(client, chosen)
    stack_images.ensure(client, places, this_machine, environment, chosen)
    stack_secrets.ensure(client, places, chosen, environment)
    versions = {
        **stack_files.copy(places, chosen),
        "CREDENTIALS_VERSION": stack_secrets.credentials_version(places),
    }
    chosen = replace(chosen, values={**chosen.values, **versions})
    draft = places.stack_settings.with_suffix(".draft")
    draft.write_text(stack_settings.render(chosen))
    draft.replace(places.stack_settings)
    return chosen


def bring_up(client: docker.DockerClient, places: Places, chosen: Chosen, command: Compose) -> None:
    """Start what does not run, wait until all of it is healthy and answers over TLS."""
    with step(f"Starting the services (project {chosen.project}; compose's words are in {command.log})"):
        before = command.log.stat().st_size if command.log.exists() else 0
        with command.begin("up", "--detach", "--remove-orphans") as process:

            def failure() -> str | None:
                if process.poll() is None:
                    return None
                return command.failed("up", before) if process.returncode else ""

            try:
                wanted = stack_watch.services(chosen)
                stack_watch.wait_until_healthy(client, chosen.project, failure, wanted)
            except BaseException:
                # Without its terminal compose would go on for a while, behind the next command's back.
                process.terminate()
                raise
            finally:
                command.wait(process)
    fetch_root_certificate(client, places, chosen)
    wait_until_ready(places, chosen)


def fetch_root_certificate(client: docker.DockerClient, places: Places, chosen: Chosen) -> None:
    """Copy the root of the proxy's own certificates to where callers find it."""
    proxy = stack_watch.containers(client, chosen.project, "proxy")[0]
    try:
        chunks, _ = proxy.get_archive(ROOT_CERTIFICATE)
        packed = io.BytesIO(b"".join(chunks))
    except APIError as error:
        raise SetupError(
            f"The proxy has no root certificate at {ROOT_CERTIFICATE}: {error.explanation}"
        ) from error
    with tarfile.open(fileobj=packed) as archive:
        content = archive.extractfile(archive.getmembers()[0])
        text = content.read() if content else b""
    draft = places.root_certificate.with_suffix(".draft")
    draft.write_bytes(text)
    draft.chmod(0o644)
    draft.replace(places.root_certificate)


def wait_until_ready(places: Places, chosen: Chosen) -> None:
    """Wait for `/readyz` through the proxy, its certificate checked against the root that callers use."""
    published = chosen.values["PUBLISH_ADDRESS"]
    pool = urllib3.HTTPSConnectionPool(
        {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(published, published),  # noqa: S104 - Compared with, not bound.
        chosen.https_port,
        ca_certs=str(places.root_certificate),
        server_hostname="localhost",
        assert_hostname="localhost",
        timeout=5,
        retries=False,
    )
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            answer = pool.request("GET", "/readyz", headers={"Host": "localhost"})
            if answer.status == 200:
                return
            said = f"{answer.status}: {answer.data[:300].decode(errors='replace').strip()}"
        except urllib3.exceptions.HTTPError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise SetupError(
                f"All services are healthy, but {chosen.address}/readyz does not say so within "
                f"{READY_SECONDS} s ({said}). `docker logs` of the proxy and of public_api may say why."
            )
        time.sleep(0.2)


def down(places: Places, *, purge: bool) -> None:
    """Stop and remove the stack; its data stays unless ``purge``. The keys of people stay in any case."""
    remembered = recall(places)
    if not remembered:
        say("There is no stack here; nothing to stop.")
        return
    chosen = Chosen(remembered)
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    # All files: what a broker of three nodes left behind goes too, when there is only one by now.
    command = replace(
        _compose(compose.find(this_machine), places, chosen, host), profiles=PROFILES, files=FILES
    )
    client = engine.connect(host)
    try:
        if stack_watch.containers(client, chosen.project, "consumer"):
            with step(f"Stopping the consumers (a running task may end first, {DRAIN_SECONDS} s at most)"):
                command.run("stop", "--timeout", str(DRAIN_SECONDS), "consumer")
        with step("Removing the services and their networks" + (", and all data" if purge else "")):
            command.run("down", "--remove-orphans", "--timeout", "30", *(["--volumes"] if purge else []))
    finally:
        client.close()
    removed = leftovers.remove(host, chosen.installation)
    detail(f"{removed} containers and volumes of models removed from the engine")
    if purge:
        for folder in (places.secrets, places.stack_files):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (places.root_certificate, places.stack_settings):
            file.unlink(missing_ok=True)
        detail(
            f"data and secrets are gone; {places.admin_key.name} and {places.worker_key.name} stay "
            f"in {places.state}"
        )
    else:
        detail(
            "the data stays in its volumes; `make stack-up` goes on with it, `make stack-down PURGE=1` "
            "deletes it"
        )


def status(places: Places) -> None:
    """One line for each service."""
    remembered = recall(places)
    if not remembered:
        say("There is no stack here; `make stack-up` starts one.")
        return
    chosen = Chosen(remembered)
    host = engine.ensure(places, machine.look(), os.environ)
    client = engine.connect(host)
    try:
        sights = stack_watch.look(client, chosen.project)
    finally:
        client.close()
    for sight in sorted(sights, key=lambda sight: sight.service):
        restarted = f", restarted {sight.restarts} times" if sight.restarts else ""
        say(f"{sight.service:<12} {sight.condition}{restarted}")
    missing = stack_watch.unready(sights, stack_watch.services(chosen))
    if missing:
        raise SetupError(f"Not ready: {', '.join(f'{service} ({how})' for service, how in missing.items())}.")
    say(f"All is ready on {chosen.address}.")


def manage_proxy(places: Places) -> None:
    """Become a command of the proxy's management, with the words of ARGS and our input and output."""
    chosen = Chosen(recall(places))
    if not chosen.values:
        raise SetupError("There is no stack here; `make stack-up` starts one.")
    this_machine = machine.look()
    host = engine.ensure(places, this_machine, os.environ)
    command = _compose(compose.find(this_machine), places, chosen, host)
    words = shlex.split(os.environ.get("ARGS", "")) or ["--help"]
    command.become("run", "--rm", "--no-deps", "-T", "proxy-admin", *words)


def recall(places: Places) -> dict[str, str]:
    """The settings of the stack that was started last; empty when there is none."""
    try:
        return stack_settings.parse(places.stack_settings.read_text())
    except FileNotFoundError:
        return {}


def socket_of(host: str, this_machine: Machine) -> str:
    """Where the consumer finds the engine's socket, on the engine's own machine."""
    if this_machine.system != "Linux":
        return "/var/run/docker.sock"  # Desktop engines live in a machine of their own, where it lies here.
    scheme, _, path = host.partition("://")
    return path if scheme == "unix" else "/var/run/docker.sock"


def _compose(words: list[str], places: Places, chosen: Chosen, host: str) -> Compose:
    log = places.logs / "compose.log"
    files = FILES if chosen.has_broker_cluster else FILES[:1]
    return Compose(words, places.checkout, places.stack_settings, chosen.project, host, log, files=files)


def _require_ports(client: docker.DockerClient, chosen: Chosen) -> None:
    ours = {
        int(binding["HostPort"])
        for proxy in stack_watch.containers(client, chosen.project, "proxy")
        for bindings in (proxy.ports or {}).values()
        for binding in bindings or []
    }
    for variable in ("HTTPS_PORT", "HTTP_PORT"):
        port = int(chosen.values[variable])
        if port not in ours:
            ports.require_free(port, chosen.values["PUBLISH_ADDRESS"], variable, "make stack-up")


def farewell(chosen: Chosen, places: Places) -> str:
    """The exact lines for the reader's next steps."""
    key = shlex.quote(places.shown(places.admin_key))
    root = shlex.quote(places.shown(places.root_certificate))
    return f"""
It answers on {chosen.address}. Ask it something, as its first admin:

  curl --cacert {root} -H "Authorization: Bearer $(cat {key})" {chosen.address}/v1/models

Or with the client:

  export INFER_SERVER={chosen.address} INFER_KEY_FILE={key} INFER_CA_CERT={root}
  .venv/bin/infer models list

`make stack-status` says how the services are, `make stack-down` stops them and keeps their data,
docs/operating.md says the rest: domains and certificates, backup, what to watch.
"""
