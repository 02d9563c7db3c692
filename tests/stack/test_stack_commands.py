"""`make stack-up` and its sisters, run as an operator runs them, on an installation of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from setup.stack import stack_watch
from setup.stack.stack_settings import parse
from tests.models.images import engine
from tests.rig import remains
from tests.rig.api import Api
from tests.rig.containers import run_inside
from tests.rig.polling import eventually
from tests.rig.ports import free_ports
from tests.rig.stack import ROOT

pytestmark = pytest.mark.timeout(600)


class Operator:
    """Somebody with a checkout, a state directory and two free ports."""

    def __init__(self, state: Path) -> None:
        self.state = state
        https_port, http_port = free_ports(2)
        self.settings = {
            "STATE_DIRECTORY": str(state),
            "HTTPS_PORT": str(https_port),
            "HTTP_PORT": str(http_port),
            "IMAGES": os.environ.get("IMAGES", "local"),
            "CPU_SLOTS": "1",
            "GPUS": "none",
        }

    def begin(self, command: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "setup", command],
            cwd=ROOT, env={**os.environ, **self.settings, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, command: str, *, status: int = 0, **more: str) -> str:
        """What the command said, which must end with ``status``."""
        with self.begin(command, **more) as process:
            said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        return said

    @property
    def project(self) -> str:
        return f"inferenceserver-{(self.state / 'installation').read_text().strip()}"

    @property
    def admin(self) -> Api:
        key = (self.state / "admin.key").read_text().strip()
        url = f"https://localhost:{self.settings['HTTPS_PORT']}"
        return Api(url, key, trusted=str(self.state / "ca.crt"))

    def containers(self) -> list[Any]:
        return stack_watch.containers(engine(), self.project)

    def left(self) -> list[str]:
        """What of the project is on the engine."""
        label = {"label": f"{stack_watch.PROJECT_LABEL}={self.project}"}
        client = engine()
        found = [*client.containers.list(all=True, filters=label), *client.networks.list(filters=label)]
        found += client.volumes.list(filters=label)
        return [thing.name for thing in found]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """An operator whose stack is up, though the first start was interrupted."""
    operator = Operator(tmp_path_factory.mktemp("operator") / "state")
    try:
        with operator.begin("stack-up") as process:
            installation = operator.state / "installation"
            eventually(
                lambda: installation.exists() and operator.containers(), 200, "a first container is there"
            )
            os.killpg(process.pid, signal.SIGINT)
            said, _ = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "`make stack-up` goes on where this stopped" in said
        operator.run("stack-up")
        yield operator
    finally:
        operator.run("stack-down", PURGE="1")
    assert operator.left() == []
    assert remains.all_but_contents(f"{operator.project.removeprefix('inferenceserver-')}-stack") == []
    # The keys of people are shared with the embedded server and stay.
    assert {"admin.key", "worker.key"} <= {path.name for path in operator.state.iterdir()}
    assert not (operator.state / "secrets").exists()


def test_a_second_start_changes_nothing_and_is_quick(operator: Operator) -> None:
    # Given
    key = (operator.state / "admin.key").read_text()
    before = {container.id for container in operator.containers() if container.status == "running"}
    # When
    began = time.monotonic()
    said = operator.run("stack-up")
    # Then
    assert time.monotonic() - began < 120
    assert before == {container.id for container in operator.containers() if container.status == "running"}
    assert (operator.state / "admin.key").read_text() == key
    # And it says how to go on, with the key's file and not the key
    assert str(operator.state / "ca.crt") in said
    assert key.strip() not in said
    assert "All is ready" in operator.run("stack-status")


def test_what_was_chosen_is_remembered(operator: Operator) -> None:
    remembered = parse((operator.state / "stack.env").read_text())
    assert {name: remembered[name] for name in ("HTTPS_PORT", "CPU_SLOTS")} == {
        "HTTPS_PORT": operator.settings["HTTPS_PORT"], "CPU_SLOTS": "1",
    }  # fmt: skip


def test_a_taken_port_is_named_before_anything_is_started(tmp_path: Path) -> None:
    newcomer = Operator(tmp_path / "state")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = newcomer.run("stack-up", status=1, HTTPS_PORT=str(taken.getsockname()[1]))
    assert "make stack-up HTTPS_PORT=" in said
    assert newcomer.left() == []


def test_a_service_that_cannot_start_is_quoted_and_a_mend_goes_on_from_there(operator: Operator) -> None:
    said = operator.run("stack-up", status=1, MAX_INPUT_BYTES="much")
    assert "private_api" in said
    assert "MAX_INPUT_BYTES" in said
    assert "Traceback" not in said
    operator.run("stack-up", MAX_INPUT_BYTES=str(2**30))
    assert "All is ready" in operator.run("stack-status")


def test_a_backup_brings_an_old_result_into_an_empty_stack(operator: Operator, tmp_path: Path) -> None:
    # Given a finished task of somebody's
    admin = operator.admin
    made = admin.post("/v1/keys", json={"name": "somebody", "role": "user"}).json()
    somebody = Api(admin.url, made["key"], trusted=admin.trusted)
    model = admin.register("echo")
    task = somebody.run(model, {"a.txt": b"from before", "large.bin": os.urandom(3_000_000)})
    result = somebody.output(task)
    # When
    backup = tmp_path / "backup"
    assert "is whole" in operator.run("backup", TO=str(backup))
    # Then nobody else may read it, and it is not brought over what is here
    assert all(path.stat().st_mode & 0o077 == 0 for path in [backup, *backup.iterdir()])
    assert "not empty" in operator.run("backup", status=1, TO=str(backup))
    assert "holds data already" in operator.run("restore", status=1, FROM=str(backup))
    # And a stack that was only taken down still has it
    operator.run("stack-down")
    operator.run("stack-up")
    assert somebody.output(task) == result
    # When everything is lost
    operator.run("stack-down", PURGE="1")
    operator.run("stack-up")
    assert somebody.get(f"/v1/tasks/{task['id']}").status_code == 401
    # And the backup is brought back, once it is found whole
    blobs = backup / "blobs.tar"
    whole = blobs.read_bytes()
    blobs.write_bytes(whole[:-1] + b"x")
    assert "blobs.tar" in operator.run("restore", status=1, FROM=str(backup))
    blobs.write_bytes(whole)
    operator.run("restore", FROM=str(backup))
    # Then
    assert somebody.output(task) == result
    assert somebody.run(model, {"b.txt": b"and on it goes"})["state"] == "succeeded"


def test_the_broker_grows_to_three_nodes(operator: Operator) -> None:
    # Given a stack with one
    model = operator.admin.register("echo")
    assert operator.admin.run(model, {"a.txt": b"one"})["state"] == "succeeded"
    # When
    operator.run("stack-up", BROKER_NODES="3")
    # Then every queue has a copy on each node
    broker = stack_watch.containers(engine(), operator.project, "rabbitmq")[0]
    command = ["rabbitmqctl", "--quiet", "list_queues", "name", "online", "--formatter", "json"]

    def copies() -> dict[str, int]:
        try:
            listed = json.loads(run_inside(broker, command).output)
        except ValueError:
            # It began a list, and then had no words for what has only just begun.
            return {}
        return {queue["name"]: len(queue["online"]) for queue in listed}

    # (A node is there a little before it has its copies.)
    wanted = {"tasks.cpu": 3, "tasks.gpu": 3}
    eventually(lambda: wanted.items() <= copies().items(), 60, "each node has a copy of every queue", every=1)
    assert operator.admin.run(model, {"a.txt": b"three"})["state"] == "succeeded"
    assert "rabbitmq-3   healthy" in operator.run("stack-status")


def test_new_passwords_reach_files_and_services(operator: Operator) -> None:
    # Given a stack whose broker has three nodes, if the test before has run: they change together
    names = (
        "database-password", "s3-secret-key", "broker-server-password", "broker-worker-password",
        "broker-cookie",
    )  # fmt: skip
    before = {name: (operator.state / "secrets" / name).read_text() for name in names}
    model = operator.admin.register("echo")
    # When
    said = operator.run("rotate-secrets")
    # Then
    after = {name: (operator.state / "secrets" / name).read_text() for name in names}
    assert all(before[name] != after[name] for name in names)
    assert not any(text.strip() in said for text in (*before.values(), *after.values()))
    # And every service works with them, after a start from nothing but files and volumes too
    assert operator.admin.run(model, {"a.txt": b"after"})["state"] == "succeeded"
    operator.run("stack-down")
    # With one node again, which knows nothing of the others
    operator.run("stack-up", BROKER_NODES="1")
    assert operator.admin.run(model, {"a.txt": b"and again"})["state"] == "succeeded"


def test_credentials_for_registries_reach_the_consumer_and_can_be_forgotten(
    operator: Operator, tmp_path: Path
) -> None:
    # Given a file as docker login writes it
    file, auth = tmp_path / "config.json", {"registry.example.org": {"auth": "dXNlcjpzZWNyZXQ="}}
    file.write_text(json.dumps({"auths": auth}))
    others = {
        item.id for item in operator.containers() if item.labels[stack_watch.SERVICE_LABEL] != "consumer"
    }
    # When a start names it
    said = operator.run("stack-up", REGISTRY_CREDENTIALS_FILE=str(file))
    # Then the consumer has it, and nobody else was disturbed
    assert told_registries(operator) == auth
    assert "dXNlcjpzZWNyZXQ=" not in said
    assert others <= {item.id for item in operator.containers()}
    # And it keeps it until it is told to forget
    operator.run("stack-up")
    assert told_registries(operator) == auth
    operator.run("stack-up", REGISTRY_CREDENTIALS_FILE="none")
    assert told_registries(operator) == {}
    # And what is no such file changes nothing
    file.write_text("[]")
    assert "REGISTRY_CREDENTIALS_FILE" in operator.run(
        "stack-up", status=1, REGISTRY_CREDENTIALS_FILE=str(file)
    )


def told_registries(operator: Operator) -> Any:
    """The credentials that the consumer reads."""
    (consumer,) = stack_watch.containers(engine(), operator.project, "consumer")
    return json.loads(run_inside(consumer, ["cat", "/run/secrets/registry-credentials.json"]).checked())[
        "auths"
    ]


def test_domains_are_managed_while_the_proxy_runs(operator: Operator) -> None:
    assert "served by the internal authority" in operator.run(
        "proxy", ARGS="domains add inference.test --tls internal"
    )
    assert "inference.test" in operator.run("proxy", ARGS="domains list")
    assert "no longer served" in operator.run("proxy", ARGS="domains remove inference.test")
