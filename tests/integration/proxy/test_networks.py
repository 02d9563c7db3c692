"""Caddy between two networks, as in the stack: the admin API is on the private one, and only there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.integration.proxy.running_proxy import IMAGE, running_proxy
from tests.integration.proxy.stand_ins import serving
from tests.rig.containers import run_alone
from tests.rig.parts import LABEL
from tests.rig.polling import eventually

ALIAS = "proxy-admin-api"
# Prints what an HTTP request over plain TCP is answered, or that there is no way.
ASK = (
    "exec 3<>/dev/tcp/{host}/2019 && printf 'GET /config/ HTTP/1.0\\r\\nHost: {name}:2019\\r\\n"
    "Origin: http://{name}:2019\\r\\n\\r\\n' >&3 && head -c 200 <&3"
)


@pytest.fixture
def networks() -> Iterator[tuple[Any, Any]]:
    client = docker.from_env()
    tag = secrets.token_hex(4)
    made = [
        client.networks.create(f"proxy-test-{tag}-{name}", internal=True, labels={LABEL: "1"})
        for name in ("front", "admin")
    ]
    yield made[0], made[1]
    for network in made:
        network.reload()
        for container in network.containers:
            container.remove(force=True, v=True)
    for network in made:
        network.remove()
    client.close()


def test_only_the_private_network_reaches_the_admin_api(networks: tuple[Any, Any], tmp_path: Path) -> None:
    # given Caddy on both networks, with its name on the private one
    front, admin = networks
    client = front.client
    settings = {"PROXY_ADMIN_API": f"{ALIAS}:2019", "PROXY_HTTPS_BIND": ":8443", "PROXY_HTTP_BIND": ":8080"}
    with (
        serving() as upstream,
        running_proxy(tmp_path, f"127.0.0.1:{upstream.server_port}", start=False, **settings) as proxy,
    ):
        container = client.containers.create(
            IMAGE,
            ["caddy", "run", "--config", str(proxy.directory / "state/caddy.json")],
            user=f"{os.getuid()}:{os.getgid()}",
            network=front.name,
            volumes={str(proxy.directory / "state"): {"bind": str(proxy.directory / "state"), "mode": "ro"}},
            labels={LABEL: "1"},
        )
        admin.connect(container, aliases=[ALIAS])
        container.start()
        eventually(lambda: b"serving initial configuration" in container.logs(), 20, "Caddy serves")
        container.reload()
        addresses = container.attrs["NetworkSettings"]["Networks"]
        front_address = addresses[front.name]["IPAddress"]

        # when it is asked from each network
        from_admin = ask(client, admin, ALIAS)
        from_front = ask(client, front, front_address)
        over_the_fence = ask(client, front, addresses[admin.name]["IPAddress"])

        # then
        assert from_admin.startswith("HTTP/1.0 200 OK")
        assert "refused" in from_front
        assert "HTTP/" not in over_the_fence

        # and what serves everybody is on the front network
        reach = ["bash", "-c", f"exec 3<>/dev/tcp/{front_address}/8443 && echo open"]
        https = run_alone(client, IMAGE, reach, network=front.name, labels={LABEL: "1"})
        assert https.text == "open\n"
        container.remove(force=True, v=True)


def ask(client: Any, network: Any, host: str) -> str:
    """What a container on ``network`` is answered when it asks for the configuration."""
    command = ["timeout", "5", "bash", "-c", ASK.format(host=host, name=ALIAS)]
    done = run_alone(client, IMAGE, command, network=network.name, labels={LABEL: "1"})
    return done.output.decode() + done.errors
