"""Machines of our own with an engine each, to be joined to a Swarm, killed, frozen and cut off.

Tests enter, as root. A machine is a set of namespaces: its own network, joined by a cable to a switch of
ours, its own host name, processes and mounts. What a fresh machine has at its default places (the engine's
socket, its data, its certificates) a node has at the same places, so that a line of the documentation is the
line that a test runs. Killing its first process ends everything at once, as a power cut would: the kernel
takes the rest along, and with it the mounts, the cable and every rule.
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException
from requests.exceptions import RequestException

from tests.rig.engine import _cgroups, _children, _remove_cgroups
from tests.rig.polling import eventually

_FREEZER = Path("/sys/fs/cgroup/freezer")
# What every machine has in its environment: nothing of ours, above all no HTTP proxy.
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
# Runs in the machine's namespaces before anything else. What other engines have mounted was copied into ours
# when the namespace was made, and would keep their containers' file systems from ever going.
_FURNISH = """
set -eu
directory=$1
hostname "$2"
while read -r _ _ _ _ place _; do
    case "$place" in
        /tmp/*|/run/*|/var/lib/docker/*) umount --lazy "$place" 2>/dev/null || true ;;
    esac
done </proc/self/mountinfo
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /var/lib/docker /var/lib/containerd /etc/docker
mount --bind "$directory/docker" /var/lib/docker
mount --bind "$directory/containerd" /var/lib/containerd
mount --bind "$directory/etc" /etc/docker
if [ -n "$3" ]; then
    mkdir -p /var/lib/docker/volumes
    mount -t tmpfs -o "size=$3,mode=701" tmpfs /var/lib/docker/volumes
fi
ip link set lo up
"""


class Switch:
    """What the machines' cables lead to: a bridge in a network namespace of its own, and one cable to us.

    A process that does nothing holds the namespace; with its end everything goes.
    """

    def __init__(self) -> None:
        # Addresses for measurements between networks (RFC 2544): no real network has them.
        self._prefix = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
        self.address = f"{self._prefix}.1"
        self._ours = f"isr{secrets.token_hex(4)}"
        self._cables = 0
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        own = Path("/proc/self/ns/net").readlink()
        there = Path(f"/proc/{self._holder.pid}/ns/net")
        eventually(lambda: there.readlink() != own, 10, "the switch has a namespace of its own")
        self._run("link", "add", "bridge", "type", "bridge")
        self._run("link", "set", "bridge", "up")
        self._plug(self._ours, os.getpid())
        _run("ip", "address", "add", f"{self.address}/24", "dev", self._ours)
        _run("ip", "link", "set", self._ours, "up")

    def address_of(self, number: int) -> str:
        """The address of the machine with that number, from 1."""
        return f"{self._prefix}.{10 + number}"

    def plug(self, pid: int, address: str) -> None:
        """Lead a cable to the namespace in which the process ``pid`` lives."""
        self._plug("eth0", pid)
        for line in (
            ["address", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", self.address],
        ):
            _run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", *line)

    def _plug(self, name: str, pid: int) -> None:
        # A cable's end at the switch goes a moment after a killed machine; so each has a name of its own.
        self._cables += 1
        port = f"port{self._cables}"
        self._run("link", "add", port, "type", "veth", "peer", "name", name, "netns", str(pid))
        self._run("link", "set", port, "master", "bridge", "up")

    def _run(self, *words: str) -> None:
        _run("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "ip", *words)

    def close(self) -> None:
        """Remove it with all cables."""
        self._holder.kill()
        self._holder.wait(10)
        eventually(
            lambda: not Path(f"/sys/class/net/{self._ours}").exists(), 10, "the switch's cable is gone"
        )


class Node:
    """One machine in any number of lives, on data of its own.

    ``volumes_size`` bounds what its volumes hold (``64m``), for a disk that fills; ``flags`` are dockerd's.
    """

    def __init__(
        self,
        switch: Switch,
        number: int,
        *,
        host_name: str = "",
        volumes_size: str = "",
        flags: Sequence[str] = (),
    ) -> None:
        self.switch = switch
        self.id = f"isr-{secrets.token_hex(4)}"
        self.host_name = host_name or f"node{number}"
        self.address = switch.address_of(number)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.id}-", dir="/tmp"))
        self.host = f"unix://{self.directory}/engine.sock"
        self._volumes_size = volumes_size
        self._flags = list(flags)
        self._holder: subprocess.Popen[bytes] | None = None
        self._init: int | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._client: docker.DockerClient | None = None
        for name in ("docker", "containerd", "etc"):
            (self.directory / name).mkdir()

    def start(self, seconds: float = 60.0) -> None:
        """Switch it on and wait until its engine answers."""
        self.begin()
        self.wait_until_it_answers(seconds)

    def begin(self) -> None:
        """Switch it on."""
        assert self._init is None, "the machine runs already"
        holder = self._spawn("machine", [
            "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=KILL",
            "--mount-proc", "docker-init", "--", "sleep", "infinity",
        ])  # fmt: skip
        self._holder = holder
        self._init = eventually(
            lambda: next(iter(_children(holder.pid)), None), 10, "the machine's first process"
        )
        # Before it has children, so that all of them are frozen with it.
        frozen = _FREEZER / self.id
        frozen.mkdir(exist_ok=True)
        (frozen / "cgroup.procs").write_text(str(self._init))
        eventually(self._has_proc, 10, "the machine has its own /proc")
        self.run("sh", "-c", _FURNISH, "furnish", str(self.directory), self.host_name, self._volumes_size)
        self.switch.plug(self._init, self.address)
        configuration = self.directory / "containerd.toml"
        # What serves Kubernetes would look for networks to set up.
        configuration.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        self._enter("containerd", ["containerd", "--config", str(configuration)])
        self.start_engine()

    def start_engine(self) -> None:
        """Start its dockerd, after ``kill_engine``."""
        self.run("rm", "-f", "/run/docker.pid")
        self._dockerd = self._enter("dockerd", [
            "dockerd", "--host", "unix:///var/run/docker.sock", "--host", self.host,
            "--containerd", "/run/containerd/containerd.sock", "--cgroup-parent", f"/{self.id}", *self._flags,
        ])  # fmt: skip

    def kill_engine(self) -> None:
        """End its dockerd at once; its containers live on."""
        pid = int(self.run("cat", "/run/docker.pid"))
        self.run("kill", "-9", str(pid))
        assert self._dockerd is not None
        self._dockerd.wait(30)

    def wait_until_it_answers(self, seconds: float = 60.0) -> None:
        """Wait until the engine answers."""
        eventually(self._answers, seconds, f"the engine of {self.host_name} answers", every=0.1)

    @property
    def running(self) -> bool:
        return self._init is not None

    @property
    def client(self) -> docker.DockerClient:
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.host, timeout=60, version="1.41")
        return self._client

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] = _ENVIRONMENT,
        check: bool = True,
        seconds: float = 300,
    ) -> str:
        """The output of a command typed at this machine; it must succeed unless ``check`` is false."""
        done = subprocess.run(
            self._inside(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            check=False,
            timeout=seconds,
        )
        output = (done.stdout + done.stderr).decode(errors="replace")
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {output}"
        return output.strip()

    def load(self, *tags: str) -> None:
        """Give it images that the tests' engine has."""
        socket_path = f"{self.directory}/engine.sock"
        save = subprocess.Popen(["docker", "save", *tags], stdout=subprocess.PIPE)
        try:
            subprocess.run(
                ["docker", "-H", f"unix://{socket_path}", "load", "-q"],
                stdin=save.stdout, check=True, capture_output=True,
            )  # fmt: skip
        finally:
            assert save.stdout is not None
            save.stdout.close()
            assert save.wait() == 0, f"docker save of {tags}"

    def now(self) -> str:
        """The time as its engine has it."""
        return self.run("date", "+%s.%N")

    def started(self, label: str, since: str) -> list[str]:
        """The containers with that label that its engine has started since ``now`` said ``since``."""
        words = ["docker", "events", "--since", since, "--until", self.now(), "--filter", "event=start"]
        return self.run(*words, "--filter", f"label={label}", "--format", "{{.ID}}").split()

    # Faults.

    def kill(self) -> None:
        """A power cut: everything of it ends at once."""
        assert self._holder is not None
        assert self._init is not None
        os.kill(self._init, signal.SIGKILL)
        # A frozen process dies when it is thawed.
        self.thaw()
        for process in self._started:
            process.wait(30)
        self._started.clear()
        self._holder, self._init = None, None
        if self._client is not None:
            self._client.close()
            self._client = None
        eventually(lambda: not self._processes(), 20, f"all processes of {self.host_name} have ended")

    def freeze(self) -> None:
        """Stop every process of it, containers too, in the middle of whatever it does."""
        state = _FREEZER / self.id / "freezer.state"
        state.write_text("FROZEN")
        eventually(lambda: state.read_text().strip() == "FROZEN", 20, f"{self.host_name} is frozen")

    def thaw(self) -> None:
        """Let it go on where it was."""
        (_FREEZER / self.id / "freezer.state").write_text("THAWED")

    def cut(self, *match: str) -> None:
        """Lose packets that match, to and from everywhere in it: ``-d 198.18.0.11``, or a port."""
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            self.run(
                "iptables", "-w", "-I", chain, *match, "-m", "comment", "--comment", "rig-cut", "-j", "DROP"
            )

    def cut_container(self, container: Any, port: int) -> None:
        """Lose what a container of it sends to that TCP port, and what comes back.

        What goes from machine to machine is wrapped, so that the machine's own rules see no ports in it.
        """
        for match in (["OUTPUT", "--dport"], ["INPUT", "--sport"]):
            rule = ["iptables", "-w", "-A", match[0], "-p", "tcp", match[1], str(port), "-j", "DROP"]
            self._in_container(container, *rule)

    def mend_container(self, container: Any) -> None:
        """Undo ``cut_container``."""
        for chain in ("INPUT", "OUTPUT"):
            self._in_container(container, "iptables", "-w", "-F", chain)

    def _in_container(self, container: Any, *command: str) -> None:
        # The number that the machine itself knows the process by.
        container.reload()
        self.run("nsenter", "--target", str(container.attrs["State"]["Pid"]), "--net", *command)

    def mend(self) -> None:
        """Undo every ``cut``."""
        for chain in ("INPUT", "OUTPUT", "FORWARD"):
            rules = self.run("iptables", "-w", "-S", chain).splitlines()
            for rule in rules:
                if "rig-cut" in rule:
                    self.run("iptables", "-w", "-D", *rule.replace('"', "").split()[1:])

    def close(self) -> None:
        """Switch it off and remove every trace of it."""
        try:
            if self.running:
                self.kill()
        finally:
            _remove_cgroups(self.id)
            shutil.rmtree(self.directory)

    def traces(self) -> list[str]:
        """What is there of it outside its directory."""
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if self.id in line]
        return [*map(str, self._processes()), *mounts, *map(str, _cgroups(self.id))]

    def last_lines(self, count: int = 30) -> str:
        """The end of its engine's log."""
        log = self.directory / "dockerd.log"
        return (
            "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else "(no log)"
        )

    def _inside(self, command: Sequence[str]) -> list[str]:
        return [
            "nsenter",
            "--target",
            str(self._init),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            *command,
        ]

    def _enter(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # Through the freezer's group first: what is started from outside would not be in it.
        procs = _FREEZER / self.id / "cgroup.procs"
        return self._spawn(name, ["sh", "-c", 'echo $$ >"$0"; exec "$@"', str(procs), *self._inside(command)])

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                cwd="/", env=_ENVIRONMENT,
            )  # fmt: skip
        self._started.append(process)
        return process

    def _has_proc(self) -> bool:
        return self.run("readlink", "/proc/self", check=False) != str(Path("/proc/self").readlink())

    def _answers(self) -> bool:
        assert self._dockerd is not None
        assert self._dockerd.poll() is None, f"the engine has ended:\n{self.last_lines()}"
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(self.host.removeprefix("unix://")) != 0:
                return False
        try:
            return bool(self.client.ping())
        except (DockerException, RequestException):
            return False

    def _processes(self) -> list[int]:
        """All that are in its control groups: what it started cannot leave them."""
        found = []
        for root, _, _ in os.walk(_FREEZER / self.id):
            with contextlib.suppress(OSError):
                found += [int(pid) for pid in (Path(root) / "cgroup.procs").read_text().split()]
        return found


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
