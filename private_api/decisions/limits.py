"""What a run may use where nobody said anything. Pure."""

from __future__ import annotations

from contracts.messages import Limits

_GIB = 1024**3

DEFAULT_LIMITS = Limits(
    time_seconds=3600.0,
    memory_bytes=4 * _GIB,
    cpus=2.0,
    pids=512,
    output_bytes=10 * _GIB,
    output_files=100_000,
    log_bytes=10 * 1024**2,
    shm_bytes=_GIB,
    tmp_bytes=_GIB,
)
