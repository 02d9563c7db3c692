"""Which engine is used, started or refused, from what the addresses answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from setup.engine.dockerd import explain
from setup.engine.engine import Answer, Step, candidates, decide, version_numbers
from setup.host.machine import Machine

DEBIAN_ROOT = Machine("Linux", "debian", "bookworm", is_root=True, has_apt=True, has_systemd=False)
DEBIAN_USER = Machine("Linux", "debian", "bookworm", is_root=False, has_apt=True, has_systemd=True)
FEDORA_ROOT = Machine("Linux", "fedora", "", is_root=True, has_apt=False, has_systemd=True)
MAC = Machine("Darwin", "", "", is_root=False, has_apt=False, has_systemd=False)
SILENT = Answer("unix:///var/run/docker.sock", error="No such file or directory")


def test_docker_host_is_the_only_candidate() -> None:
    # Given a DOCKER_HOST, when candidates are listed, then no other engine is asked behind its back.
    found = candidates({"DOCKER_HOST": "tcp://10.0.0.1:2376"}, Path("/home/a"), "unix:///other.sock")
    assert found == ["tcp://10.0.0.1:2376"]


def test_the_chosen_context_comes_first_and_nothing_twice() -> None:
    found = candidates({"XDG_RUNTIME_DIR": "/run/user/7"}, Path("/home/a"), "unix:///run/user/7/docker.sock")
    assert found == [
        "unix:///run/user/7/docker.sock",
        "unix:///var/run/docker.sock",
        "unix:///home/a/.docker/run/docker.sock",
    ]


def test_the_first_engine_that_is_new_enough_is_used() -> None:
    answers = [SILENT, Answer("unix:///old", "1.40"), Answer("unix:///new", "1.43")]
    decision = decide(answers, DEBIAN_ROOT, has_dockerd=True, host_is_set=False)
    assert decision.step is Step.USE
    assert decision.answer == answers[2]


def test_an_old_engine_is_refused_with_its_version() -> None:
    decision = decide([Answer("unix:///old", "1.40")], DEBIAN_ROOT, has_dockerd=True, host_is_set=False)
    assert decision.step is Step.REFUSE
    assert "1.40" in decision.sentence
    assert "1.41" in decision.sentence


def test_api_versions_compare_as_numbers() -> None:
    assert version_numbers("1.5") < version_numbers("1.41")


def test_a_silent_docker_host_is_refused_even_where_an_engine_could_be_installed() -> None:
    decision = decide([Answer("tcp://h:1", error="refused")], DEBIAN_ROOT, has_dockerd=True, host_is_set=True)
    assert decision.step is Step.REFUSE
    assert "tcp://h:1" in decision.sentence


def test_an_engine_that_may_not_be_used_is_not_taken_for_none() -> None:
    answer = Answer("unix:///var/run/docker.sock", error="PermissionError(13, 'Permission denied')")
    decision = decide([answer], DEBIAN_USER, has_dockerd=True, host_is_set=False)
    assert "group docker" in decision.sentence


@pytest.mark.parametrize(
    ("machine", "has_dockerd", "step", "words"),
    [
        (DEBIAN_ROOT, True, Step.START, ""),
        (DEBIAN_ROOT, False, Step.INSTALL, ""),
        (FEDORA_ROOT, True, Step.START, ""),
        (FEDORA_ROOT, False, Step.REFUSE, "Install Docker 20.10"),
        (DEBIAN_USER, True, Step.REFUSE, "systemctl start docker"),
        (DEBIAN_USER, False, Step.REFUSE, "apt-get install docker.io"),
        (MAC, False, Step.REFUSE, "Docker Desktop"),
    ],
)
def test_where_nobody_answers_the_machine_decides(
    machine: Machine, has_dockerd: bool, step: Step, words: str
) -> None:
    decision = decide([SILENT], machine, has_dockerd=has_dockerd, host_is_set=False)
    assert decision.step is step
    assert words in decision.sentence


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("failed to create NAT chain DOCKER: iptables failed", "iptables"),
        ("error initializing graphdriver: overlay2", "overlay"),
        ("mount: operation not permitted", "--privileged"),
        ("something else", ""),
    ],
)
def test_the_log_of_an_engine_that_does_not_start_is_explained(line: str, hint: str) -> None:
    assert hint in explain([line])
    assert bool(explain([line])) == bool(hint)
