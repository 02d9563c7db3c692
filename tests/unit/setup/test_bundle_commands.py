"""What a bundle's scripts and its setup image say and refuse; an engine is only looked for, never asked."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from setup.bundle import __main__ as door
from setup.bundle import lists, proxy, toolbox
from setup.bundle.manifest import Manifest
from setup.console import worded
from setup.images import service_images
from setup.places import Places
from setup.stack import stack_files

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The scripts and lists of a bundle without images."""
    folder = tmp_path / "bundle"
    release = Manifest("2.0.0", "2026-11-21T15:00:00Z", "amd64", "local", "ours/setup:1", ())
    for name, content in {**lists.scripts(), **lists.facts(release, None)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
    return folder


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_scripts_are_plain_shell(bundle: Path) -> None:
    for script in ("install", "inferenceserver"):
        assert run("sh", "-n", bundle / script).stderr == ""
        assert not re.search(r"\blocal \b|\[\[|pipefail|function ", (bundle / script).read_text())


def test_help_says_it_all_without_an_engine(bundle: Path) -> None:
    said = run(bundle / "install", "--help", DOCKER_HOST="unix:///nowhere")
    assert said.returncode == 0
    assert "./install --images-only" in said.stdout
    said = run(bundle / "inferenceserver", "--help", DOCKER_HOST="unix:///nowhere")
    assert said.returncode == 0
    # Every command that the image knows is offered
    assert all(f"\n  {command} " in said.stdout for command in (*door.COMMANDS, "infer"))


def test_what_is_not_a_bundle_or_not_an_option_is_refused_first(bundle: Path) -> None:
    assert "no option --image-only" in run(bundle / "install", "--image-only").stderr
    assert "not complete" in run(bundle / "install").stderr


def test_a_command_before_any_server_says_what_to_do(bundle: Path) -> None:
    said = run(bundle / "inferenceserver", "stack-status")
    assert said.returncode == 1
    assert said.stderr == "error: this belongs to no server yet; run ./install of the bundle.\n"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///nowhere/docker.sock", "no engine listens on /nowhere/docker.sock"),
        ("tcp://127.0.0.1:2375", "must be on this machine, behind a socket"),
    ],
)
def test_an_engine_that_cannot_be_used_is_named(bundle: Path, tmp_path: Path, host: str, words: str) -> None:
    said = run(bundle / "inferenceserver", "stack-status", DOCKER_HOST=host, STATE_DIRECTORY=str(tmp_path))
    assert said.returncode == 1
    assert words in said.stderr


def test_messages_name_the_command_that_is_there() -> None:
    text = "`make stack-down PURGE=1`, then make backup TO=… and .venv/bin/infer; make sure of it"
    assert worded(text, "") == text
    assert worded(text, "/s/inferenceserver") == (
        "`/s/inferenceserver stack-down PURGE=1`, then /s/inferenceserver backup TO=… and "
        "/s/inferenceserver infer; make sure of it"
    )


def test_the_client_is_told_of_this_server_unless_its_caller_names_another() -> None:
    places = Places(ROOT, Path("/s"))
    ours = door.client_environment({}, places, "8443")
    assert ours == {
        "INFER_SERVER": "https://localhost:8443",
        "INFER_CA_CERT": "/s/ca.crt",
        "INFER_KEY_FILE": "/s/admin.key",
    }
    assert "INFER_KEY_FILE" not in door.client_environment({"INFER_KEY": "isk_x"}, places, "8443")
    # Our first admin's key is nothing for somebody else's server.
    assert door.client_environment({"INFER_SERVER": "https://o"}, places, "1") == {
        "INFER_SERVER": "https://o"
    }


def test_the_proxys_commands_run_in_a_container_like_its_own() -> None:
    inspected: dict[str, Any] = {
        "Config": {
            "Image": "i", "User": "10001", "Env": ["A=b"], "Entrypoint": ["python"], "WorkingDir": "/w",
            "Cmd": ["render"],
            "Labels": {"com.docker.compose.project": "p", "com.docker.compose.service": "s"},
        },
        "HostConfig": {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "RestartPolicy": {"Name": "always"}},
        "NetworkSettings": {"Networks": {"p_admin": {"IPAddress": "10.0.0.2"}}},
    }  # fmt: skip
    made = proxy.like(inspected, ["domains", "list"])
    assert made["Cmd"] == ["domains", "list"]
    assert made["HostConfig"] == {"ReadonlyRootfs": True, "CapDrop": ["ALL"], "RestartPolicy": {"Name": "no"}}
    # On the same network, at an address of its own; found by `down`, and not taken for the service
    assert made["NetworkingConfig"] == {"EndpointsConfig": {"p_admin": {}}}
    assert made["Labels"] == {"com.docker.compose.project": "p", "com.docker.compose.oneoff": "True"}


def test_the_setup_image_has_every_file_that_its_commands_read() -> None:
    held = set(service_images.context(ROOT, toolbox.SETUP))
    wanted = {path.name for path in ROOT.glob("compose*.yaml")} | set(stack_files.CONFIGURATION.values())
    for folder in ("stack", "monitoring", "client/src"):
        wanted |= {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
    assert wanted <= held
    assert not [path for path in held if path.startswith((".", "tests/", "docs/"))]


def test_its_dockerfile_needs_no_buildkit() -> None:
    text = (ROOT / toolbox.SETUP.dockerfile).read_text()
    assert not re.search(r"^# *syntax=|--mount=|<<[A-Z]|COPY --(link|chmod|parents)", text, re.MULTILINE)
    assert "--require-hashes" in text
