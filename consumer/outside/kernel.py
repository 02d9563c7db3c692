"""What the kernel tells that an engine may not: ``docker_engine.py`` enters. The engine's machine is ours."""

from __future__ import annotations

from pathlib import Path

_COUNTS = Path("/proc/vmstat")


def memory_kills(counts: Path = _COUNTS) -> int:
    """How many processes it has killed for want of memory, in any container; 0 where it does not count."""
    try:
        lines = counts.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
