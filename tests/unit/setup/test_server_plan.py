"""Ports, processes and supervisord's configuration."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from configparser import ConfigParser
from dataclasses import replace
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from setup.console import SetupError
from setup.embedded.supervision import ServerPlan, code_fingerprint, render, unusable_path
from setup.host.ports import choose_private, is_free, read_port, require_free
from setup.host.processes import is_same_process, listening_inodes, start_time

PLAN = ServerPlan(
    checkout=Path("/home/a b/1 mine"),
    state=Path("/home/a b/1 mine/.state"),
    python="/home/a b/1 mine/.venv/bin/python",
    socket=Path("/tmp/s.sock"),
    port=8080,
    private_port=8081,
    installation="ab12",
    docker_host="unix:///var/run/docker.sock",
    code="0123",
    as_root=False,
)


def test_the_configuration_survives_spaces() -> None:
    # Given a checkout whose path has spaces, when supervisord's configuration is read back
    parser = ConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(render(PLAN))
    # Then the command and the settings are what was meant.
    program = parser["program:consumer"]
    assert shlex.split(program["command"]) == [PLAN.python, "-m", "consumer"]
    settings = dict(item.split("=", 1) for item in shlex.split(program["environment"].replace(",", " ")))
    assert settings["CONSUMER_DIRECTORY"] == "/home/a b/1 mine/.state/consumer"
    assert settings["INSTALLATION"] == "ab12"


def test_supervisord_itself_accepts_the_configuration(tmp_path: Path) -> None:
    # Given real directories, when supervisord's own parser reads what we render
    state = tmp_path / "1 st"
    (state / "run").mkdir(parents=True)
    (state / "logs").mkdir()
    plan = replace(PLAN, checkout=tmp_path, state=state)
    config = state / "run" / "supervisord.conf"
    config.write_text(render(plan))
    options = ServerOptions()
    options.realize(["-c", str(config)])
    # Then it knows the three services, in order, with their settings.
    programs = [group.process_configs[0] for group in sorted(options.process_group_configs)]
    assert [program.name for program in programs] == ["private_api", "public_api", "consumer"]
    assert programs[1].environment["PRIVATE_API_URL"] == "http://127.0.0.1:8081"
    assert programs[0].environment["KEY_DIRECTORY"] == str(state)


@pytest.mark.parametrize(
    "change",
    [{"port": 9000}, {"private_port": 9001}, {"code": "4567"}, {"docker_host": "unix:///other.sock"}],
)
def test_whatever_calls_for_a_restart_changes_the_text(change: dict[str, object]) -> None:
    assert render(replace(PLAN, **change)) != render(PLAN)  # type: ignore[arg-type]


def test_a_path_that_supervisord_would_misread_is_found_out() -> None:
    assert unusable_path(Path("/home/a/c #1")) == " #"
    assert unusable_path(Path("/home/a/100%")) == "%"
    assert unusable_path(Path("/home/a/c#1")) == ""


def test_the_code_fingerprint_sees_a_changed_service(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "embedded.txt").write_text("a==1")
    (tmp_path / "consumer").mkdir()
    (tmp_path / "consumer" / "x.py").write_text("1")
    before = code_fingerprint(tmp_path)
    (tmp_path / "consumer" / "x.py").write_text("2")
    assert code_fingerprint(tmp_path) != before


def test_a_taken_port_is_refused_with_its_holder() -> None:
    # Given a port that this very process listens on
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        # When it is asked for, then the error names the port and, where it can be seen, the process.
        assert not is_free(port)
        with pytest.raises(SetupError, match=rf"Port {port} is taken.*make demo PORT=") as refusal:
            require_free(port)
        if Path("/proc/net/tcp").exists():
            assert f"process {os.getpid()}" in str(refusal.value)


@pytest.mark.parametrize("text", ["", "0", "-1", "80a", "65535", "٣"])
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="PORT must be"):
        read_port(text)


def test_the_private_port_is_the_remembered_one_or_the_next_free_one() -> None:
    assert choose_private(8080, 9191, lambda port: True) == 9191
    assert choose_private(8080, 9191, lambda port: port != 9191) == 8081
    assert choose_private(8080, None, lambda port: port > 8082) == 8083
    assert choose_private(8080, 8080, lambda port: True) == 8081


def test_no_free_private_port_is_said() -> None:
    with pytest.raises(SetupError, match="No port between"):
        choose_private(8080, None, lambda port: False)


def test_listening_sockets_are_found_in_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
        "   1: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n"
        "   2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n"
    )
    assert listening_inodes(table, 8080) == {"4711"}


def test_a_process_is_known_by_its_start_time_and_gone_when_it_ended() -> None:
    # Given a child that waits
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    started = start_time(child.pid)
    assert started
    assert is_same_process(child.pid, started)
    assert not is_same_process(child.pid, "another time")
    # When it ends, then it is not the same process any more, even before its parent asked for it.
    assert child.stdin is not None
    child.stdin.close()
    child.wait(timeout=10)
    assert not is_same_process(child.pid, started)
