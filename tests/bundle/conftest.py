"""A release as one archive, and a machine with nothing but an engine: no network, no Python, no Compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models.images import image_of
from tests.rig.engine import OwnEngine
from tests.rig.stack import ROOT

# All that a bundle's scripts may use beside the engine's client; each is in every small system, busybox too.
TOOLS = (
    "awk", "basename", "cat", "chmod", "cp", "cut", "dirname", "grep", "head", "id", "ls", "mkdir", "mktemp",
    "mv", "rm", "sed", "sh", "sha256sum", "sort", "stat", "tail", "tar", "wc",
)  # fmt: skip


class Machine:
    """The machine of a closed network, and who works at it."""

    def __init__(self, folder: Path) -> None:
        self.engine = OwnEngine(networks=True)
        self.folder = folder
        self.state = folder / "server"
        self._tools = folder / "tools"
        self._tools.mkdir(parents=True)
        for name in (*TOOLS, "docker"):
            program = shutil.which(name)
            assert program, name
            (self._tools / name).symlink_to(program)

    def run(self, *command: str, status: int | None = 0, cwd: Path | None = None, **settings: str) -> str:
        """What a command says on this machine, where it finds nothing but those tools."""
        environment = {
            "PATH": str(self._tools), "HOME": str(self.folder), "DOCKER_HOST": self.engine.host, **settings
        }  # fmt: skip
        cleared = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        done = subprocess.run(
            self.engine.inside([*cleared, *command]), cwd=cwd or self.folder, text=True, timeout=300,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status, done.stdout
        return done.stdout

    def install(self, bundle: Path, *words: str, status: int = 0) -> str:
        """`./install` in a bundle's directory."""
        return self.run("./install", *words, f"STATE_DIRECTORY={self.state}", cwd=bundle, status=status)

    def serve(self, *words: str, status: int = 0, cwd: Path | None = None) -> str:
        """One of the installed server's own commands."""
        return self.run(str(self.state / "inferenceserver"), *words, status=status, cwd=cwd)

    def ask(self, path: str, *options: str) -> bytes:
        """The body of an answer, over TLS, as the first admin."""
        key = (self.state / "admin.key").read_text().strip()
        header = self.folder / "header"
        header.write_text(f"Authorization: Bearer {key}\n")
        # The tests' own settings may name a proxy, which is not here.
        command = ["curl", "-sS", "--fail-with-body", "--noproxy", "*", "--header", f"@{header}"]
        words = [*command, "--cacert", str(self.state / "ca.crt"), *options, f"https://localhost:8443{path}"]
        done = subprocess.run(self.engine.inside(words), capture_output=True, timeout=90, check=False)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def images(self) -> dict[str, str]:
        """What the engine has: ids by tag."""
        return {tag: str(image.id) for image in self.engine.client.images.list() for tag in image.tags}


@dataclass(frozen=True)
class Bundle:
    """An archive, unpacked."""

    archive: Path
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return document


class Maker:
    """Somebody with a checkout and an engine that has the images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, settings: Mapping[str, str]) -> Bundle:
        """`make bundle`, and its archive unpacked as a target does it."""
        out = self.folder / name
        environment = {
            **os.environ, "STATE_DIRECTORY": str(self.folder / "state"), "OUT": str(out),
            "IMAGES": os.environ.get("IMAGES", "local"), "ALSO": image_of("echo"), **settings,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "setup", "bundle"], cwd=ROOT, env=environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        [archive] = out.glob("*.tar")
        return unpack(archive, out)


def unpack(archive: Path, folder: Path) -> Bundle:
    """What `tar -xf` makes of it."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder)
    [unpacked] = [path for path in folder.iterdir() if path.is_dir()]
    return Bundle(archive, unpacked)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def whole(maker: Maker) -> Bundle:
    """The bundle of this checkout."""
    return maker.make("whole", {})


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that nothing was ever installed on; the module's tests use it one after another."""
    machine = Machine(tmp_path_factory.mktemp("closed"))
    try:
        machine.engine.start()
        yield machine
    finally:
        machine.engine.close()
