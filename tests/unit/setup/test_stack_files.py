"""compose.yaml and the Dockerfiles, held against what the stack promises and what the code imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.announcements import BrokerNode, broker_address
from setup.images import service_images
from setup.images.service_images import ServiceImage
from setup.stack import stack_settings, stack_watch

ROOT = Path(__file__).resolve().parents[3]
ROOMS = {"contracts", "archives", "serving", "private_api", "public_api", "consumer", "proxy"}
TEXT = (ROOT / "compose.yaml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
CLUSTER = (ROOT / "stack/brokers/cluster.conf").read_text()
# Services of the stack itself; those of a profile are extras.
OWN = {name: service for name, service in SERVICES.items() if not service.get("profiles")}


def test_setup_waits_for_every_service_of_the_stack() -> None:
    assert set(OWN) == {*stack_watch.SERVICES, *stack_watch.ONE_SHOTS}


def test_only_the_proxy_publishes_and_it_does_so_on_this_machine_by_default() -> None:
    published = {name: service["ports"] for name, service in OWN.items() if service.get("ports")}
    assert set(published) == {"proxy"}
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in published["proxy"])


def test_only_the_consumer_has_the_socket_of_the_engine_and_only_it_is_root() -> None:
    assert {name for name, service in SERVICES.items() if "docker.sock" in str(service)} == {"consumer"}
    roots = {name for name, service in SERVICES.items() if str(service.get("user", "0")).startswith("0")}
    assert roots == {"consumer"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert {"mem_limit", "pids_limit"} <= set(service)
    assert service["logging"]["options"]["max-size"]
    assert service.get("healthcheck") or service.get("profiles") or service["restart"] == "no"
    assert "privileged" not in service


def test_only_one_network_reaches_the_world_and_only_the_proxy_is_on_it() -> None:
    outward = {name for name, network in FILE["networks"].items() if not network.get("internal")}
    assert outward == {"edge"}
    assert {name for name, service in OWN.items() if "edge" in service["networks"]} == {"proxy"}
    # Whoever is beside the database or the store is named here on purpose.
    assert {name for name, service in OWN.items() if "data" in service["networks"]} == {
        "private_api", "postgres", "s3", "rabbitmq",
    }  # fmt: skip


def test_no_secret_is_in_the_environment() -> None:
    for name, service in SERVICES.items():
        for variable, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|KEY|TOKEN", variable):
                assert str(value).startswith("/run/secrets"), f"{name}: {variable}"


def test_the_defaults_are_the_images_that_setup_pulls() -> None:
    images = stack_settings.UPSTREAM | {
        f"{service.name.replace('-', '_').upper()}_IMAGE": service.tag(service_images.read_version(ROOT))
        for service in service_images.ALL
    }
    defaults = dict(re.findall(r"\$\{([A-Z0-9_]+_IMAGE):-([^}]+)\}", TEXT))
    assert {name: defaults[name] for name in defaults if name in images} == {
        name: image for name, image in images.items() if name in defaults
    }
    assert set(stack_settings.UPSTREAM) <= set(defaults)
    assert all(":" in image and not image.endswith(":latest") for image in defaults.values())


def test_every_variable_that_compose_reads_is_one_that_setup_knows() -> None:
    known = {
        *stack_settings.DEFAULTS, *stack_settings.OPTIONAL, *stack_settings.UPSTREAM,
        "STATE_DIRECTORY", "INSTALLATION", "DOCKER_SOCKET", "STORE_USER",
        *(f"{service.name.replace('-', '_').upper()}_IMAGE" for service in service_images.ALL),
        "PROXY_CONFIGURATION", "RABBITMQ_CONFIGURATION", "CREDENTIALS_VERSION",
    }  # fmt: skip
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", TEXT))
    # The ones that compose itself reads, and that says which files it is given.
    assert read == known - {"COMPOSE_PROFILES", "BROKER_NODES"}


@pytest.mark.parametrize("name", stack_settings.OF_SERVICES)
def test_every_setting_that_setup_hands_on_is_one_that_a_service_reads(name: str) -> None:
    settings = [
        ROOT / "private_api/settings.py",
        ROOT / "public_api/settings.py",
        ROOT / "consumer/node/settings.py",
    ]
    assert any(f'"{name}"' in path.read_text() for path in settings)


@pytest.mark.parametrize("service", service_images.ALL, ids=lambda service: service.name)
def test_an_image_holds_the_rooms_that_its_service_imports_and_nothing_else(service: ServiceImage) -> None:
    held = set(service_images.context(ROOT, service))
    rooms = {path.split("/")[0] for path in held} - {"images", "requirements", "pyproject.toml"}
    own = {"proxy-admin": "proxy"}.get(service.name, service.name.replace("-", "_"))
    assert rooms == imported_rooms(own)
    assert {path for path in held if path.startswith(("images/", "requirements/"))} == {
        f"images/{service.name}/Dockerfile", f"requirements/{own.replace('_', '-')}.txt",
    }  # fmt: skip
    assert not [path for path in held if "test" in path or "__pycache__" in path or path.startswith(".")]


@pytest.mark.parametrize("service", service_images.ALL, ids=lambda service: service.name)
def test_a_dockerfile_needs_no_buildkit_and_names_its_user(service: ServiceImage) -> None:
    text = (ROOT / service.dockerfile).read_text()
    assert not re.search(r"^# *syntax=|--mount=|<<[A-Z]|COPY --(link|chmod|parents)", text, re.MULTILINE)
    assert "--require-hashes" in text
    assert ("USER 10001:10001" in text) is (service is not service_images.CONSUMER)


def test_the_builds_context_leaves_out_all_that_no_image_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for service in service_images.ALL
        for source in service_images.copied((ROOT / service.dockerfile).read_text())
    }
    assert "*" in lines
    assert allowed == copied


def imported_rooms(room: str) -> set[str]:
    """The rooms that a room's modules import, and those that these import, and itself."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += list(_imports_of(ROOT / current))
    return found


def _imports_of(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            yield from (room for name in names if (room := name.split(".")[0]) in ROOMS)


BROKERS: dict[str, Any] = yaml.safe_load((ROOT / "compose.brokers.yaml").read_text())


def test_setup_waits_for_every_node_of_the_broker() -> None:
    added = set(BROKERS["services"]) - set(SERVICES)
    assert added == set(stack_watch.MORE_BROKERS)
    three = stack_settings.Chosen({"BROKER_NODES": "3"})
    assert set(stack_watch.services(three)) == {*stack_watch.SERVICES, *added}
    assert stack_watch.services(stack_settings.Chosen({})) == stack_watch.SERVICES


def test_the_nodes_of_the_broker_are_confined_like_the_single_one() -> None:
    single = SERVICES["rabbitmq"]
    same = (
        "image", "user", "restart", "init", "read_only", "cap_drop", "security_opt", "logging", "tmpfs",
        "healthcheck", "ulimits", "stop_grace_period", "mem_limit", "pids_limit",
    )  # fmt: skip
    for name in stack_watch.MORE_BROKERS:
        node = BROKERS["services"][name]
        assert {key: node[key] for key in same} == {key: single[key] for key in same}
        assert set(node["networks"]) == {*single["networks"], "brokers"}
        assert "ports" not in node
    assert BROKERS["networks"]["brokers"] == {"internal": True}


def test_services_know_every_node_of_the_broker_and_the_nodes_each_other() -> None:
    nodes = ["rabbitmq", *stack_watch.MORE_BROKERS]
    hosts = [BrokerNode(name, 5672) for name in nodes]
    for service in ("private_api", "consumer"):
        address = broker_address(BROKERS["services"][service]["environment"]["BROKER_URL"])
        assert list(address.nodes) == hosts
        assert address.user == broker_address(SERVICES[service]["environment"]["BROKER_URL"]).user
    names = [BROKERS["services"][node]["environment"]["RABBITMQ_NODENAME"] for node in nodes]
    listed = re.findall(r"^cluster_formation.*nodes\.\d = (.*)$", CLUSTER, re.MULTILINE)
    assert listed == names
    for node, name in zip(nodes, names, strict=True):
        service = BROKERS["services"][node]
        assert service["networks"]["brokers"]["aliases"] == [name.removeprefix("rabbit@")]
        assert service["environment"]["BROKER_CLUSTER"].split() == names


def test_three_machines_run_the_same_brokers_as_one() -> None:
    swarm = yaml.safe_load((ROOT / "swarm/brokers.yaml").read_text())["services"]
    names = re.findall(r"^cluster_formation.*nodes\.\d = (.*)$", CLUSTER, re.MULTILINE)
    for number, name in enumerate(names, start=1):
        node = swarm[f"rabbitmq-{number}"]
        assert node["environment"]["RABBITMQ_NODENAME"] == name
        assert node["environment"]["BROKER_CLUSTER"].split() == names
        assert node["networks"]["brokers"]["aliases"] == [name.removeprefix("rabbit@")]
        assert node["deploy"]["placement"]["constraints"] == [
            f"node.labels.inferenceserver.broker == {number}"
        ]
    for service in ("private_api", "consumer"):
        address = broker_address(swarm[service]["environment"]["BROKER_URL"])
        assert [node.host for node in address.nodes] == ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"]


def test_the_brokers_file_reads_no_variable_that_setup_does_not_know() -> None:
    read = set(re.findall(r"\$\{([A-Z0-9_]+)", (ROOT / "compose.brokers.yaml").read_text()))
    assert read == {"RABBITMQ_IMAGE", "RABBITMQ_CONFIGURATION", "BROKERS_CONFIGURATION", "STATE_DIRECTORY"}
    assert (
        "${RABBITMQ_IMAGE:-" + stack_settings.UPSTREAM["RABBITMQ_IMAGE"] + "}"
        in (ROOT / "compose.brokers.yaml").read_text()
    )
