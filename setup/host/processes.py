"""Which process is which: start times, so that a remembered id means nobody else; and who holds a port.

Reads only. On systems without /proc the answers are less exact, never wrong in the direction of harm.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"  # The kernel's number of TCP's LISTEN state, as /proc/net/tcp writes it.


def start_time(pid: int) -> str | None:
    """When a process started, in a form that only compares; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
        asked = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or None
    # The command's name stands in parentheses and may hold anything; fields are counted after it (proc(5)).
    fields = text.rsplit(")", 1)[1].split()
    return None if fields[0] in {"Z", "X"} else f"{_boot_id()}:{fields[19]}"


def _boot_id() -> str:
    # Ticks are counted from the boot, so only together with the boot do they name a moment.
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]


def is_same_process(pid: int, started: str) -> bool:
    """Whether the process that had this id and start time still runs."""
    if pid <= 0 or not started:
        return False
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # A child of ours that ended must not look alive.
    return start_time(pid) == started


def port_holder(port: int) -> str:
    """Who listens on a TCP port, for an error message; empty when it cannot be found out."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            inodes |= listening_inodes(table.read_text(), port)
    if not inodes:
        return ""
    targets = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # Processes end while they are looked at, and others' may not be looked at.
            if any(str(link.readlink()) in targets for link in (process / "fd").iterdir()):
                return describe(process)
    return ""


def listening_inodes(table: str, port: int) -> set[str]:
    """The socket inodes that listen on ``port`` in the text of /proc/net/tcp."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {
        row[9]
        for row in rows
        if len(row) > 9 and row[3] == LISTENING and int(row[1].rsplit(":", 1)[1], 16) == port
    }


def describe(process: Path) -> str:
    """One line about a process, for people."""
    words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return f"process {process.name} ({words[:80]})"
