"""A container engine of our own, to be killed at will: another ``dockerd`` in its own network namespace.

Tests enter, as root. Two engines in one network namespace would take each other's bridge away; this one has
none, since models use no network, unless a test asks for networks; no way leads out of its namespace in any
case. Its ``containerd`` is a service beside it, as packages set it up, and lives on when the engine is
killed. Whatever happens, ``close`` leaves nothing: no process, mount, control group or namespace.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from tests.models import images
from tests.rig.polling import eventually

_CGROUPS = Path("/sys/fs/cgroup")


class OwnEngine:
    """One engine in any number of lives, on data of its own. ``flags`` are dockerd's."""

    def __init__(
        self, flags: Sequence[str] = (), *, networks: bool = False, programs: Path | None = None
    ) -> None:
        self.name = f"isr-{secrets.token_hex(4)}"
        # Short: the path of a socket may not be long.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
        self.host = f"unix://{self.directory}/engine.sock"
        self._flags = list(flags) if networks else ["--bridge=none", "--iptables=false", *flags]
        # A directory of programs that it finds before all others.
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None
        self._client: docker.DockerClient | None = None
        _run("ip", "netns", "add", self.name)
        # Published ports listen there.
        _run("ip", "-n", self.name, "link", "set", "lo", "up")

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, to be run on the engine's own network."""
        # While it runs it holds its namespace, whoever tidies up the directory of names meanwhile.
        pid = self._process.pid if self._process is not None and self.running else None
        namespace = f"/proc/{pid}/ns/net" if pid else f"/var/run/netns/{self.name}"
        return ["nsenter", f"--net={namespace}", *command]

    def start(self, seconds: float = 30.0) -> None:
        """Begin a life, and wait until it answers."""
        assert not self.running, "the engine runs already"
        if self._containerd is None:
            self._containerd = self._spawn("containerd", self._containerd_command())
        # One that was killed leaves it, and its number may be anybody's by now.
        (self.directory / "pid").unlink(missing_ok=True)
        command = [
            *self.inside(["dockerd"]),
            "--data-root", f"{self.directory}/data", "--exec-root", f"{self.directory}/exec",
            "--pidfile", f"{self.directory}/pid", "--host", self.host,
            "--containerd", f"{self.directory}/containerd.sock",
            "--containerd-namespace", self.name, "--containerd-plugins-namespace", f"{self.name}-p",
            "--cgroup-parent", f"/{self.name}", *self._flags,
        ]  # fmt: skip
        self._process = self._spawn("dockerd", command)
        eventually(self._answers, seconds, "the engine answers", every=0.1)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it as the machine's memory running out would: what it had started lives on."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it as an operator would; unless it was told otherwise it ends its containers first."""
        self._end(signal.SIGTERM)

    def load(self, tag: str) -> None:
        """Give it an image that the tests' engine has."""
        saved = b"".join(images.engine().images.get(tag).save(named=True))
        self.client.images.load(saved)

    @property
    def client(self) -> docker.DockerClient:
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.host, timeout=60, version="1.41")
        return self._client

    def last_lines(self) -> str:
        """The end of its log."""
        log = self.directory / "dockerd.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else "(no log)"

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            path = os.pathsep.join([*([str(self._programs)] if self._programs else []), os.environ["PATH"]])
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env=os.environ | {"PATH": path},
            )  # fmt: skip

    def _containerd_command(self) -> list[str]:
        configuration = self.directory / "containerd.toml"
        # What serves Kubernetes would look for networks to set up.
        configuration.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        return [
            "containerd", "--config", str(configuration), "--address", f"{self.directory}/containerd.sock",
            "--root", f"{self.directory}/images", "--state", f"{self.directory}/shims",
        ]  # fmt: skip

    def close(self) -> None:
        """End it with all that it ever started, and remove every trace of it."""
        if self._client is not None:
            self._client.close()
        try:
            if self.running:
                self.kill()
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._containerd is not None:
                self._containerd.wait(10)
            eventually(lambda: not self._processes(), 10, "its processes have ended")
        finally:
            for place in self._mounts():
                subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
            _remove_cgroups(self.name)
            _run("ip", "netns", "delete", self.name)
            shutil.rmtree(self.directory)

    def traces(self) -> list[str]:
        """What is there of it outside its directory."""
        cgroups = [str(path) for path in _cgroups(self.name)]
        return [*map(str, self._processes()), *self._mounts(), *cgroups]

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self.running, f"the engine has ended:\n{self.last_lines()}"
        with socket.socket(socket.AF_UNIX) as probe:
            # The SDK leaves a socket open that nobody answers.
            if probe.connect_ex(self.host.removeprefix("unix://")) != 0:
                return False
        try:
            return bool(self.client.ping())
        except (DockerException, RequestException):
            return False

    def _processes(self) -> list[int]:
        """It, its containerd, the shims of its containers, and all that runs below those."""
        marks = (str(self.directory).encode(), self.name.encode())
        found = [pid for pid, line in _command_lines() if any(mark in line for mark in marks)]
        for pid in found:
            found += [child for child in _children(pid) if child not in found]
        return [pid for pid in found if pid != os.getpid()]

    def _mounts(self) -> list[str]:
        """What is mounted below its directory, the innermost first."""
        lines = Path("/proc/self/mounts").read_text().splitlines()
        places = [line.split()[1] for line in lines]
        return [place for place in reversed(places) if place.startswith(f"{self.directory}/")]


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(path.name), (path / "cmdline").read_bytes()


def _children(pid: int) -> list[int]:
    try:
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def _cgroups(name: str) -> list[Path]:
    """The control groups of that name under version 2, or in each hierarchy of version 1."""
    return [path for path in (_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")) if path.is_dir()]


def _remove_cgroups(name: str) -> None:
    for root in _cgroups(name):
        # A control group goes as a directory does, after those inside it; what lies in it cannot be removed.
        for directory, _, _ in os.walk(root, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
