"""The holder's program, byte by byte where it matters; that it runs is for the real engine to show."""

from __future__ import annotations

import io
import struct
import tarfile

import pytest

from consumer.node.pause_image import pause_archive, pause_program
from consumer.outside.errors import EngineError


@pytest.mark.parametrize(("architecture", "machine", "code_bytes"), [("amd64", 62, 9), ("arm64", 183, 32)])
def test_the_program_is_an_executable_of_its_machine(
    architecture: str, machine: int, code_bytes: int
) -> None:
    program = pause_program(architecture)
    kind, found, _, entry = struct.unpack_from("<HHIQ", program, 16)
    assert program[:4] == b"\x7fELF"
    assert (kind, found) == (2, machine)
    assert entry == 0x400000 + len(program) - code_bytes


def test_the_arm_program_jumps_back_to_its_first_instruction() -> None:
    [jump] = struct.unpack("<I", pause_program("arm64")[-4:])
    assert jump >> 26 == 0b000101
    assert (jump & 0x3FFFFFF) - 2**26 == -7


def test_the_archive_is_the_same_each_time() -> None:
    assert pause_archive("amd64") == pause_archive("amd64")
    with tarfile.open(fileobj=io.BytesIO(pause_archive("amd64"))) as tar:
        assert [(member.name, member.mode) for member in tar] == [("pause", 0o755)]


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(EngineError, match="riscv64"):
        pause_program("riscv64")
