"""How a slot's process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# A slot that has drained while its parent, at the other end of the pipe, still lives.
PROGRAM = """
import threading, time
from consumer.__main__ import _end_with_parent
threading.Thread(target=_end_with_parent, daemon=True).start()
{then}
"""


def start(then: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM.format(then=then)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_drained_slot_ends_without_a_word_while_its_parent_lives() -> None:
    process = start("time.sleep(0.3)")
    try:
        assert process.wait(20) == 0
    finally:
        _, said = process.communicate()
    assert said == b""


def test_a_slot_ends_with_its_parent() -> None:
    process = start("time.sleep(60)")
    process.communicate(timeout=20)
    assert process.returncode == 1
