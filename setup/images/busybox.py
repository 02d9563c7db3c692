"""A statically linked busybox: the tests' own tiny images are made of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from setup.console import SetupError
from setup.host.machine import Machine, apt_install

ELF_MAGIC = b"\x7fELF"
INTERPRETER = 3  # PT_INTERP: only a program that needs a dynamic loader has such a segment (elf(5)).


def ensure(machine: Machine) -> Path:
    """The path of a static busybox; installed where it is missing and this machine allows it."""
    found = _find()
    if found is None and machine.can_install:
        apt_install(["busybox-static"], "the tests build their images from it")
        found = _find()
    if found is None:
        raise SetupError(
            "The tests need a statically linked busybox on the PATH (Debian/Ubuntu: apt-get install "
            "busybox-static). Install it and run this again."
        )
    return found


def _find() -> Path | None:
    path = shutil.which("busybox")
    return Path(path) if path and is_static(Path(path).read_bytes()) else None


def is_static(program: bytes) -> bool:
    """Whether a 64-bit little-endian ELF program runs without any library."""
    if program[:4] != ELF_MAGIC or program[4:6] != b"\x02\x01":
        return False
    table = int.from_bytes(program[32:40], "little")
    size = int.from_bytes(program[54:56], "little")
    count = int.from_bytes(program[56:58], "little")
    kinds = [int.from_bytes(program[table + i * size : table + i * size + 4], "little") for i in range(count)]
    return INTERPRETER not in kinds
