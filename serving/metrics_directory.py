"""The directory through which the processes of one service count together, made before anything is counted.

prometheus_client chooses how it counts when it is imported: in memory, or in files that several processes
share. So each ``__main__`` enters here before its other imports. The directory is new at every start, since a
file of an earlier start would be counted again; it is removed at the end, and what killed services left is
removed by the next start of any service.

Standard library only, and nothing that imports prometheus_client.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

# The variable by which prometheus_client, and the children of this process, find the directory.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "inferenceserver-metrics-"
_LOCK = "lock"


def use_fresh_directory(parent: Path | None = None) -> Path:
    """Have this process, and those that it starts, count in a new directory below ``parent``.

    In memory where the machine has a place for that: the files are written at every count.
    """
    parent = parent or _fast_place()
    _remove_abandoned(parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    # Held until this process and its forks have ended, however they end; never closed on purpose. It gets its
    # name when it is held: a service that starts in the same moment would take the directory for abandoned.
    draft = directory / f"{_LOCK}.draft"
    fcntl.flock(os.open(draft, os.O_CREAT | os.O_RDWR, 0o600), fcntl.LOCK_EX)
    draft.rename(directory / _LOCK)
    os.environ[VARIABLE] = str(directory)
    atexit.register(_remove_own, directory, os.getpid())
    return directory


def _fast_place() -> Path:
    memory = Path("/dev/shm")  # noqa: S108  # The directory below it is made with mkdtemp.
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _remove_own(directory: Path, maker: int) -> None:
    # A forked worker runs this at its end as well.
    if os.getpid() == maker:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        # Without its lock it is being made, or belongs to somebody else: neither is ours to remove.
        with contextlib.suppress(OSError), (directory / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
