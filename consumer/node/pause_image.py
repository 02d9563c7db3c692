"""The holder's image, made from bytes: one static program that does nothing, in an otherwise empty file
system.

``holder.py`` and ``engine_check.py`` enter. No registry, no compiler and no file of the machine is needed,
so it can be made on a node that reaches nothing. The program's only duty is to keep a network namespace
alive until it is killed.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile

from consumer.outside.engine import Engine
from consumer.outside.errors import EngineError

REPOSITORY = "inferenceserver-holder"
_PROGRAM = "pause"

# x86-64:  mov eax, 34 (pause) · syscall · jmp back to the start, since a caught signal ends the call.
_CODE_AMD64 = bytes.fromhex("b822000000 0f05 ebf7")
# AArch64 has no pause(2): ppoll(NULL, 0, NULL, NULL, 0) waits for ever just as well.
#   movz x0..x4, #0 · movz x8, #73 (ppoll) · svc #0 · b back to the first instruction (7 words earlier)
_CODE_ARM64 = struct.pack(
    "<8I",
    *(0xD2800000 | register for register in range(5)),
    0xD2800000 | 73 << 5 | 8,
    0xD4000001,
    0x14000000 | (-7 & 0x3FFFFFF),
)
# Go's name of an architecture -> (ELF's number for it, the code).
_MACHINES = {"amd64": (62, _CODE_AMD64), "arm64": (183, _CODE_ARM64)}

_LOAD_ADDRESS = 0x400000
_FILE_HEADER = "<16sHHIQQQIHHHHHH"
_PROGRAM_HEADER = "<IIQQQQQQ"


def pause_program(architecture: str) -> bytes:
    """A 64-bit little-endian ELF executable of one segment: its headers, directly followed by the code.

    Source of the layout: System V ABI, "Object Files". Raises ``EngineError`` for an architecture without
    code here.
    """
    if architecture not in _MACHINES:
        raise EngineError(
            f"Engines on {architecture} are not supported, only those on {', '.join(_MACHINES)}."
        )
    machine, code = _MACHINES[architecture]
    headers_size = struct.calcsize(_FILE_HEADER) + struct.calcsize(_PROGRAM_HEADER)
    size = headers_size + len(code)
    file_header = struct.pack(
        _FILE_HEADER,
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, ELF version 1, System V.
        2, machine, 1,  # An executable, for this machine, in version 1 of the format.
        _LOAD_ADDRESS + headers_size,  # The entry point: the first byte after the headers.
        struct.calcsize(_FILE_HEADER), 0, 0,  # Program headers follow at once; no sections; no flags.
        struct.calcsize(_FILE_HEADER), struct.calcsize(_PROGRAM_HEADER), 1, 0, 0, 0,
    )  # fmt: skip
    program_header = struct.pack(
        _PROGRAM_HEADER,
        1, 5,  # A segment to load, readable and executable, never writable.
        0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size,  # The whole file, as it is.
        0x10000,  # Aligned for the largest page size of either machine.
    )  # fmt: skip
    return file_header + program_header + code


def pause_archive(architecture: str) -> bytes:
    """A tar of the root file system, the same bytes each time."""
    program = pause_program(architecture)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(_PROGRAM)
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    return buffer.getvalue()


def ensure_pause_image(engine: Engine) -> str:
    """Make the image unless the engine has it, and return its reference, which names its content."""
    archive = pause_archive(engine.facts().architecture)
    tag = hashlib.sha256(archive).hexdigest()[:12]
    reference = f"{REPOSITORY}:{tag}"
    if engine.find_image(reference) is None:
        engine.import_image(archive, REPOSITORY, tag, [f'ENTRYPOINT ["/{_PROGRAM}"]'])
    return reference
