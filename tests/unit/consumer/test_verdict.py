"""Every row of the verdict's table."""

from __future__ import annotations

import pytest

from consumer.attempt.verdict import Facts, Stop, decide, last_line, start_failure
from contracts.messages import SandboxProfile
from contracts.reasons import Fault, ReasonCode, fault_of
from tests.unit.consumer.consumer_leases import lease

LEASE = lease()

ROWS: list[tuple[dict[str, object], ReasonCode | None]] = [
    ({"exit_code": 0}, None),
    ({"exit_code": 1}, ReasonCode.EXIT_NONZERO),
    ({"exit_code": 143}, ReasonCode.ENGINE_FAILED),
    # Killed by nobody that we know: the machine's fault.
    ({"exit_code": 137}, ReasonCode.ENGINE_FAILED),
    ({"exit_code": None}, ReasonCode.ENGINE_FAILED),
    # Out of memory, whichever process and whatever exit code.
    ({"exit_code": 137, "oom_killed": True}, ReasonCode.OUT_OF_MEMORY),
    ({"exit_code": 0, "oom_killed": True}, ReasonCode.OUT_OF_MEMORY),
    ({"exit_code": 1, "oom_killed": True}, ReasonCode.OUT_OF_MEMORY),
    ({"exit_code": 137, "oom_killed": True, "stop": Stop.TIMED_OUT}, ReasonCode.OUT_OF_MEMORY),
    # Stopped by us, whatever the exit code says then.
    ({"exit_code": 137, "stop": Stop.TIMED_OUT}, ReasonCode.TIMED_OUT),
    ({"exit_code": 0, "stop": Stop.TIMED_OUT}, ReasonCode.TIMED_OUT),
    ({"exit_code": 137, "stop": Stop.OUTPUT_TOO_LARGE, "detail": "big"}, ReasonCode.OUTPUT_TOO_LARGE),
    ({"exit_code": 137, "stop": Stop.NODE_FULL, "detail": "full"}, ReasonCode.NODE_FULL),
    ({"exit_code": 143, "stop": Stop.CANCELED}, ReasonCode.CANCELED_BY_USER),
    ({"exit_code": 0, "stop": Stop.CANCELED}, ReasonCode.CANCELED_BY_USER),
    ({"exit_code": 137, "stop": Stop.CANCELED, "oom_killed": True}, ReasonCode.CANCELED_BY_USER),
    ({"exit_code": 143, "stop": Stop.DRAINED}, ReasonCode.DRAINED),
    ({"exit_code": None, "stop": Stop.ENGINE_LOST, "detail": "away"}, ReasonCode.ENGINE_FAILED),
    (
        {"exit_code": 0, "stop": Stop.PREVENTED, "prevented_code": ReasonCode.NO_OUTPUT, "detail": "n"},
        ReasonCode.NO_OUTPUT,
    ),
    # A single file past the file size limit.
    ({"exit_code": 153}, ReasonCode.OUTPUT_TOO_LARGE),
    # The engine's init could not run the program; a program may use the same codes for itself.
    (
        {"exit_code": 127, "last_line": "[FATAL tini (7)] exec /x failed: No such file or directory"},
        ReasonCode.IMAGE_INVALID,
    ),
    (
        {"exit_code": 126, "last_line": "[FATAL tini (7)] exec /x failed: Permission denied"},
        ReasonCode.IMAGE_INVALID,
    ),
    ({"exit_code": 127, "last_line": "sh: x: not found"}, ReasonCode.EXIT_NONZERO),
]


@pytest.mark.parametrize(("seen", "code"), ROWS)
def test_the_verdict_on_what_was_seen(seen: dict[str, object], code: ReasonCode | None) -> None:
    verdict = decide(Facts(lease=LEASE, **seen))  # type: ignore[arg-type]
    assert verdict.code == code
    assert verdict.exit_code == seen["exit_code"]
    assert verdict.succeeded or verdict.sentence


def test_the_hint_at_the_compatible_profile_is_given_only_in_the_strict_one() -> None:
    said = {"exit_code": 1, "last_line": "touch: /x: Read-only file system"}
    strict = decide(Facts(lease=LEASE, **said))  # type: ignore[arg-type]
    compatible = decide(Facts(lease=lease(profile=SandboxProfile.COMPATIBLE), **said))  # type: ignore[arg-type]
    assert "compatible profile" in strict.sentence
    assert "compatible profile" not in compatible.sentence


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (b"", ""),
        (b"one\ntwo\n\n  \n", "two"),
        (b"\x1b[31mred\x1b[0m \x07bell\x00", "red bell"),
        (b"a\xff\xfeb", "a��b"),
        (b"x" * 5000, "x" * 300),
    ],
)
def test_the_last_line_is_fit_to_be_shown(tail: bytes, line: str) -> None:
    assert last_line(tail) == line


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ('OCI runtime create failed: exec: "/x": stat /x: no such file or directory', Fault.MODEL),
        ("No command specified", Fault.MODEL),
        ("invalid mount config for type volume: invalid mount path", Fault.MODEL),
        ("write /var/lib/docker/x: no space left on device", Fault.OURS),
        ('could not select device driver "" with capabilities: [[gpu]]', Fault.OURS),
        ("failed to mount local volume: mount /x: no such file or directory", Fault.OURS),
        ("cannot join network of a non running container: abc", Fault.OURS),
        ("unable to find user nobody: no matching entries in passwd file", Fault.MODEL),
        ('exec: "/x": exec format error', Fault.MODEL),
        ("not a directory: are you trying to mount a directory onto a file?", Fault.MODEL),
        # What nobody has heard before is tried again.
        ("something else entirely", Fault.OURS),
        ("failed to create endpoint x on network y: adding interface to bridge failed", Fault.OURS),
        ("error creating overlay mount to /var/lib/x: invalid argument", Fault.OURS),
        ("OCI runtime create failed: mkdir /sys/fs/x: permission denied", Fault.OURS),
        ("nvidia-container-cli: exec: permission denied", Fault.OURS),
        ("Conflict. The container name x is already in use", Fault.OURS),
    ],
)
def test_a_refused_start_is_the_images_fault_or_ours(words: str, fault: Fault) -> None:
    code, sentence = start_failure(words)
    assert fault_of(code) is fault
    assert words in sentence
