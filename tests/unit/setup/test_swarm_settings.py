"""What the stack on a Swarm is told: checked, remembered, and enough for its file."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from setup.console import SetupError
from setup.stack import stack_settings
from setup.stack.stack_settings import Chosen, Source
from setup.swarm import settings
from setup.swarm.release import IMAGE_VARIABLES, name_in

_ROOT = Path(__file__).resolve().parents[3]
_STACK = _ROOT / "swarm/stack.yaml"


def own(**environment: str) -> Chosen:
    """The full stack's settings."""
    return stack_settings.choose(
        environment, {}, installation="abcd", state="/s", docker_socket="/d", source=Source.LOCAL, version="1"
    )


def chosen(
    environment: Mapping[str, str], remembered: Mapping[str, str] | None = None
) -> settings.SwarmChosen:
    """The Swarm's."""
    return settings.choose(environment, remembered or {}, own())


def test_networks_are_encrypted_unless_somebody_says_otherwise() -> None:
    assert chosen({}).encryption is settings.Encryption.ON
    assert chosen({"SWARM_ENCRYPTION": "off"}).encryption is settings.Encryption.OFF
    assert chosen({}, {"SWARM_ENCRYPTION": "off"}).encryption is settings.Encryption.OFF


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SWARM_ENCRYPTION", "maybe"),
        ("ADVERTISE", "gpu1"),
        ("ADVERTISE", "0.0.0.0"),
        ("ADDRESS_POOL", "10.0.0.1/8"),
        ("ADDRESS_POOL", "10.0.0.0/24"),
        ("ADDRESS_POOL", "fd00::/16"),
        ("NETWORK_MTU", "big"),
        ("REGISTRY", "https://registry.lan"),
        ("REGISTRY", "registry.lan/"),
        ("PUBLISH_ADDRESS", "192.168.1.10"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(SetupError) as raised:
        chosen({variable: text})
    assert str(raised.value).startswith(variable)
    assert "\n" not in str(raised.value)


def test_a_broker_of_three_nodes_may_be_chosen() -> None:
    three = settings.choose({}, {}, Chosen({**own().values, "BROKER_NODES": "3"}))
    assert three.own.has_broker_cluster


@pytest.mark.parametrize(("drain", "stop"), [("", 60), ("0", 40), ("2.5", 43), ("600", 640)])
def test_a_consumer_is_given_longer_than_its_tasks(drain: str, stop: int) -> None:
    environment = {"DRAIN_SECONDS": drain} if drain else {}
    assert settings.consumer_stop_seconds(own(**environment)) == stop


@pytest.mark.parametrize("drain", ["soon", "-1", "nan", "1e9"])
def test_a_wrong_drain_is_refused_before_anything_is_deployed(drain: str) -> None:
    with pytest.raises(SetupError, match="DRAIN_SECONDS"):
        settings.consumer_stop_seconds(own(DRAIN_SECONDS=drain))


def test_what_is_rendered_is_parsed_again_by_us_and_by_a_shell() -> None:
    # Given
    deployed = settings.deployed(chosen({"ADVERTISE": "192.168.1.10"}), {"CONSUMER_IMAGE": "sha256:1"}, "v1")
    text = settings.render(deployed)
    # Then
    assert settings.parse(text) == dict(deployed.values)
    printed = subprocess.run(
        ["sh", "-c", 'set -a; eval "$0"; printf %s "$ADVERTISE $CONSUMER_IMAGE"', text],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed.stdout == "192.168.1.10 sha256:1"


def test_the_file_has_no_variable_that_the_settings_do_not_give() -> None:
    # Given every variable that must have a value
    required = set(re.findall(r"\$\{([A-Z_0-9]+):\?", _STACK.read_text()))
    # Then
    deployed = settings.deployed(chosen({}), dict.fromkeys(IMAGE_VARIABLES, "x"), "v1")
    # What is fingerprinted for the stack is in the stack's own settings by then.
    assert required - set(deployed.values) == {"CREDENTIALS_VERSION", "RABBITMQ_CONFIGURATION", "NAME_CHECK"}


@pytest.mark.parametrize("file", [_STACK, _STACK.with_name("brokers.yaml")], ids=lambda path: path.name)
def test_no_name_is_longer_than_a_swarm_allows(file: Path) -> None:
    # Given names that end in a version, with the longest of each
    names = re.findall(r'name: "?(\$\{STACK:\?\}_[\w.-]+(?:\$\{[A-Z_]+:\?\})?)', file.read_text())
    assert len(names) > 1
    for name in names:
        whole = name.replace("${STACK:?}", "inferenceserver-12345678")
        assert len(re.sub(r"\$\{[A-Z_]+:\?\}", "0" * 16, whole)) <= 64, name


def without_name_check(service: str, check: dict[str, Any]) -> dict[str, Any]:
    """A health check as it is on one machine alone, where a name is never lost."""
    words = as_words(check)["test"]
    before = ["CMD", "sh", "/etc/inferenceserver/named.sh", service]
    return {**check, "test": ["CMD", *words[4:]] if words[:4] == before else words}


def as_words(check: dict[str, Any]) -> dict[str, Any]:
    kind, *words = check["test"]
    return {**check, "test": ["CMD", "sh", "-c", *words] if kind == "CMD-SHELL" else [kind, *words]}


def test_whoever_is_looked_for_by_name_notices_when_it_is_lost() -> None:
    services = yaml.safe_load(_STACK.read_text())["services"]
    # Nobody looks for consumers, and nobody but a check of its certificate for the proxy.
    for name in services.keys() - {"consumer", "proxy"}:
        check = services[name]["healthcheck"]
        assert check["test"] != without_name_check(name, check)["test"], name
        assert "named.sh" in {item["source"] for item in services[name]["configs"]}, name


def test_the_file_agrees_with_compose() -> None:
    # Given
    stack = yaml.safe_load(_STACK.read_text())
    compose = yaml.safe_load((_ROOT / "compose.yaml").read_text())["services"]
    # Then each service has the program, the check and the settings that it has there
    for name, service in stack["services"].items():
        there = compose[name]
        assert without_name_check(name, service["healthcheck"]) == as_words(there["healthcheck"]), name
        assert service.get("command") == there.get("command"), name
        assert service["user"] == there["user"], name
        shared = set(service.get("environment", {})) & set(there.get("environment", {}))
        for variable in shared - {"XDG_CONFIG_HOME", "INSTALLATION"}:
            assert service["environment"][variable] == there["environment"][variable], (name, variable)
        named = {item["source"] for item in service.get("secrets", [])}
        assert named == set(there.get("secrets", [])), name


def test_every_service_is_fit_for_a_kernel_without_ipvs_and_drains() -> None:
    for name, service in yaml.safe_load(_STACK.read_text())["services"].items():
        assert service["deploy"]["endpoint_mode"] == "dnsrr", name
        assert all(port["mode"] == "host" for port in service.get("ports", [])), name
        assert service["deploy"]["update_config"]["order"] == "stop-first", name
        assert service["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name


@pytest.mark.parametrize(
    ("registry", "image", "path"),
    [
        ("r:5000", "inferenceserver/consumer:2", "inferenceserver/consumer:2"),
        ("r:5000", "model", "model:latest"),
        ("r:5000", "r:5000/model:1", "model:1"),
        ("r.lan/group", "r.lan/group/model:1", "model:1"),
        ("r.lan/group", "other.lan/a/b:1", "a/b:1"),
        ("r:5000", "localhost/model:1", "model:1"),
    ],
)
def test_where_an_image_lies_in_a_registry(registry: str, image: str, path: str) -> None:
    assert name_in(registry, image) == path
