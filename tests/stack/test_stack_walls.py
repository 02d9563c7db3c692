"""What the stack's containers may do, whom they reach, and that no secret is seen from outside of them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import requests

from setup.stack import stack_watch
from tests.rig.polling import eventually
from tests.rig.stack import Stack, everything_about
from tests.rig.stack_fixtures import secrets_of

EVERY_SERVICE = stack_watch.SERVICES
# Tries to connect, and says what happened.
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()
    print("reached")
except OSError as error:
    print("refused" if isinstance(error, ConnectionRefusedError) else "away", error)
"""


def inspected(stack: Stack, service: str) -> dict[str, Any]:
    attributes: dict[str, Any] = stack.service(service).container.attrs
    return attributes


def test_no_secret_shows_in_anything_that_the_engine_tells(stack: Stack) -> None:
    # Given: requests have been made, so that keys went through all services
    assert stack.admin.get("/v1/models").status_code == 200
    # When
    told = everything_about(stack.project)
    # Then
    found = [name for name, secret in secrets_of(stack).items() if secret in told]
    assert found == []
    # And the search is one that can find
    assert stack.installation in told


def test_secrets_on_disk_are_for_their_owner_only(stack: Stack) -> None:
    for path in [stack.places.secrets, *stack.places.secrets.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    for key in (stack.places.admin_key, stack.places.worker_key):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_a_container_can_change_nothing_but_its_data(stack: Stack, service: str) -> None:
    host = inspected(stack, service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]


@pytest.mark.parametrize("service", EVERY_SERVICE)
def test_only_the_consumer_is_root_and_only_it_has_the_engine(stack: Stack, service: str) -> None:
    attributes = inspected(stack, service)

    def has_root() -> bool:
        processes = stack.service(service).container.top(ps_args="-eo pid,uid")["Processes"]
        return "0" in {uid for _, uid in processes}

    socket_mounted = any("docker.sock" in mount["Source"] for mount in attributes["Mounts"])
    # (The engine is root itself for the moment in which it brings a health check inside.)
    eventually(lambda: has_root() is (service == "consumer"), 10, "only the consumer has a process of root")
    assert socket_mounted is (service == "consumer")


def test_only_the_proxy_publishes_and_only_on_this_machine(stack: Stack) -> None:
    published = {
        service: bindings
        for service in EVERY_SERVICE
        if (bindings := inspected(stack, service)["HostConfig"]["PortBindings"])
    }
    assert set(published) == {"proxy"}
    assert {b["HostIp"] for bindings in published["proxy"].values() for b in bindings} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("service", "host", "port", "outcome"),
    [
        ("public_api", "private_api", 8081, "reached"),
        ("public_api", "postgres", 5432, "away"),
        ("public_api", "s3", 8333, "away"),
        ("public_api", "rabbitmq", 5672, "away"),
        # The proxy is beside it, its admin API is not.
        ("public_api", "proxy", 8443, "reached"),
        ("public_api", "proxy", 2019, "refused"),
        ("consumer", "rabbitmq", 5672, "reached"),
        ("consumer", "postgres", 5432, "away"),
        ("consumer", "s3", 8333, "away"),
        ("consumer", "proxy", 2019, "away"),
        ("private_api", "postgres", 5432, "reached"),
        # No way into the world: an address of the documentation's range, which answers nobody.
        ("private_api", "192.0.2.1", 80, "away"),
        ("public_api", "192.0.2.1", 80, "away"),
        ("consumer", "192.0.2.1", 80, "away"),
    ],
)
def test_who_reaches_whom(stack: Stack, service: str, host: str, port: int, outcome: str) -> None:
    # A name that is not there is asked for elsewhere, where nobody answers: once and briefly will do.
    patience = "timeout:2 attempts:1" if outcome == "away" else "timeout:10 attempts:2"
    connect = ["env", f"RES_OPTIONS={patience}", "python", "-c", CONNECT, host, str(port)]
    said = stack.service(service).execute(connect).decode()
    assert said.split()[0] == outcome, said


def test_plain_http_is_sent_on_to_tls(stack: Stack) -> None:
    answer = requests.get(f"{stack.http_url}/v1/models?limit=1", allow_redirects=False, timeout=10)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"{stack.url}/v1/models?limit=1"


def test_metrics_are_for_the_inside_only(stack: Stack) -> None:
    assert stack.admin.get("/metrics").status_code == 404


def test_the_address_of_a_caller_is_the_one_that_the_proxy_saw(stack: Stack) -> None:
    # When somebody claims to be somebody else
    forged = "203.0.113.77"
    marker = f"marker-{socket.gethostname()[:20]}-abcdef"
    answer = stack.admin.get("/v1/models", headers={"X-Forwarded-For": forged, "X-Request-Id": marker})
    assert answer.status_code == 200
    # Then nobody believes it
    eventually(lambda: marker in stack.public_api.last_lines(200), 20, "the request is in the log", every=0.5)
    assert forged not in stack.public_api.last_lines(200)


def test_a_caller_who_trusts_nobody_else_trusts_the_stack_by_its_root_certificate(stack: Stack) -> None:
    with requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(f"{stack.url}/healthz", timeout=10)
        root = str(stack.places.root_certificate)
        assert session.get(f"{stack.url}/healthz", timeout=10, verify=root).status_code == 200
