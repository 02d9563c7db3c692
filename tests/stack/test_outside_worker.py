"""A machine outside works for the stack with its address, its authority's certificate and a key alone."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from setup.images import service_images
from tests.models.images import engine
from tests.rig import remains
from tests.rig.api import Api, problem
from tests.rig.polling import eventually
from tests.rig.processes import ROOT
from tests.rig.stack import Stack

# What a login shell would have; nothing that names a service of the stack.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "DOCKER_HOST")


class Machine:
    """``python -m consumer join`` in the foreground of a terminal far away."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.name = f"home-{secrets.token_hex(3)}"
        self.installation = f"{stack.installation}-{self.name}"
        self.key_file = directory / "worker.key"
        self.log = directory / "log"
        self._arguments = [
            "join", "--url", stack.url, "--ca", str(stack.places.root_certificate), "--name", self.name,
            "--key-file", str(self.key_file), "--directory", str(directory / "consumer"),
            "--cpu-slots", "1", "--gpus", "none", "--label", f"site={self.name}",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        mine = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", *self._arguments],
                cwd=ROOT,
                env={**mine, "INSTALLATION": self.installation, "DRAIN_SECONDS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def interrupt(self, seconds: float) -> int:
        """Ctrl-C; the status with which it ends."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(seconds)

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(40)
            self._process.kill()


@pytest.fixture
def machine(stack: Stack, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(stack, tmp_path)
    yield machine
    machine.close()
    print(machine.log.read_text()[-6000:] if machine.log.exists() else "it was never started")
    left = remains.all_but_contents(machine.installation)
    remains.sweep(machine.installation)
    assert left == []


def new_key(stack: Stack, machine: Machine, *models: str) -> str:
    """Put a key for these models into the machine's file; returns the key's id."""
    asked = {"name": machine.name, "role": "worker", "models": list(models)}
    made = stack.admin.post("/v1/keys", json=asked).json()
    machine.key_file.write_text(made["key"] + "\n")
    return str(made["id"])


@pytest.mark.timeout(180)
def test_tasks_run_on_a_machine_outside_and_ctrl_c_ends_it(stack: Stack, machine: Machine) -> None:
    # Given a model that asks for what only the machine outside has, and a task of it with a few megabytes
    user = stack.caller("user")
    content = {"weights.bin": secrets.token_bytes(3_000_000)}
    with_content = stack.admin.register("uses-model", content=content)
    model = stack.admin.register("echo", node_labels={"site": machine.name})
    stack.admin.call("PATCH", f"/v1/models/{with_content}", json={"node_labels": {"site": machine.name}})
    files = {"scan.bin": secrets.token_bytes(8_000_000)}
    first, second = user.submit(model, files), user.submit(with_content)
    assert machine.name in user.task(first["id"])["waiting_for"]
    # When the machine joins with a key for these models
    new_key(stack, machine, model, with_content)
    machine.start()
    # Then it runs them, whatever their size, through the one address that everybody knows
    assert user.output(user.ended(first)) == files
    assert user.output(user.ended(second)) == content
    node = stack.admin.get(f"/v1/nodes/{machine.name}").json()
    assert node["labels"] == {"site": machine.name}
    assert machine.said(f"{stack.url} knows the key as {machine.name}")
    # And idle, it ends long before a held claim would
    assert machine.interrupt(20) == 0
    gone = stack.admin.get(f"/v1/nodes/{machine.name}").json()
    assert gone["state"] == "left"


@pytest.mark.timeout(240)
def test_a_revoked_key_ends_the_work_at_once_and_a_renewed_one_begins_it_again(
    stack: Stack, machine: Machine
) -> None:
    # Given a task that runs for long on the machine outside
    user: Api = stack.caller("user")
    model = stack.admin.register("slow-echo", node_labels={"site": machine.name})
    key_id = new_key(stack, machine, model)
    task = user.submit(model, {"steps.txt": b"60"})
    machine.start()
    user.running(task)
    assert remains.model_containers(machine.installation, task["id"])
    # When the key is revoked
    assert stack.admin.call("DELETE", f"/v1/keys/{key_id}").status_code == 204
    # Then the machine stops the container within seconds, and says why
    eventually(
        lambda: not remains.model_containers(machine.installation, task["id"]), 20, "the container is gone"
    )
    assert machine.said("the server refuses this worker's key") or machine.said("our key is refused")
    # And the task goes back to the queue when its lease has run out
    eventually(lambda: user.task(task["id"])["state"] == "queued", 40, "the task waits again")
    # When the file holds a new key, then the machine goes on by itself
    new_key(stack, machine, model)
    user.running(task, 90)
    assert user.post(f"/v1/tasks/{task['id']}/cancel").status_code == 202
    assert user.ended(task)["state"] == "canceled"


def test_a_key_from_outside_opens_nothing_else(stack: Stack, machine: Machine) -> None:
    model = stack.admin.register("echo")
    other = stack.admin.register("echo")
    new_key(stack, machine, model)
    worker = Api(stack.url, machine.key_file.read_text().strip(), trusted=str(stack.places.root_certificate))
    for path in ("/v1/tasks", "/v1/keys", "/v1/nodes", "/v1/dead-letters"):
        problem(worker.get(path), 403, "forbidden")
    problem(worker.get(f"/v1/models/{other}"), 404, "model_not_found")
    assert worker.get("/metrics").status_code == 404


@pytest.mark.timeout(180)
def test_the_image_joins_as_the_documentation_says(stack: Stack, tmp_path: Path) -> None:
    # Given the folder and the options of docs/workers.md; the stack is known as localhost here
    user = stack.caller("user")
    name = f"box-{secrets.token_hex(3)}"
    installation = f"{stack.installation}-{name}"
    model = stack.admin.register("echo", node_labels={"site": name})
    made = stack.admin.post("/v1/keys", json={"name": name, "role": "worker", "models": [model]}).json()
    (tmp_path / "worker.key").write_text(made["key"])
    (tmp_path / "root.crt").write_bytes(stack.places.root_certificate.read_bytes())
    volume = engine().volumes.create(name)
    container = engine().containers.run(
        service_images.CONSUMER.tag(service_images.read_version(ROOT)),
        ["join", "--url", stack.url, "--key-file", "/run/worker/worker.key", "--ca", "/run/worker/root.crt",
         "--name", name, "--label", f"site={name}", "--cpu-slots", "1", "--gpus", "none"],
        name=name, detach=True, network_mode="host", read_only=True, tmpfs={"/tmp": ""},
        cap_drop=["ALL"], cap_add=["DAC_OVERRIDE", "FOWNER"], security_opt=["no-new-privileges"],
        environment={"METRICS_BIND": "", "INSTALLATION": installation},
        volumes=["/var/run/docker.sock:/var/run/docker.sock", f"{name}:/var/lib/consumer",
                 f"{tmp_path}:/run/worker:ro"],
    )  # fmt: skip
    try:
        # When a task comes that fits it only, then it runs it, and stops as it is told
        files = {"a.txt": b"from outside"}
        assert user.output(user.run(model, files)) == files
        container.stop(timeout=60)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
    finally:
        print(container.logs().decode(errors="replace")[-6000:])
        container.remove(force=True, v=True)
        left = remains.all_but_contents(installation)
        remains.sweep(installation)
        volume.remove()
    assert left == []
