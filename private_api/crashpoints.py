"""Named points at which a test may have the process kill itself, to prove that nothing is lost there.

Costs one comparison where no test asks. A process dies once: the marker file tells its next life to pass.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

UPLOAD_STARTED = "upload_started"
UPLOAD_FINISHED = "upload_finished"
BLOB_STORED = "blob_stored"
TASK_COMMITTED = "task_committed"
CLAIMED = "claimed"
OUTPUT_STORED = "output_stored"
COMPLETED = "completed"
ANNOUNCING = "announcing"
ANNOUNCED = "announced"


class Crashpoints:
    """Knows the one point, if any, at which this process is to die."""

    def __init__(self, crash_at: str = "", marker: Path | None = None) -> None:
        self._crash_at = crash_at
        self._marker = marker

    def passing(self, name: str) -> None:
        """Die here with SIGKILL if ``name`` is the chosen point and no earlier life has died at it."""
        if not self._crash_at or name != self._crash_at:
            return
        if self._marker is not None:
            if self._marker.exists():
                return
            self._marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
