"""What a task leaves behind, and for how long each kind of it is kept once the task has ended.

Performed by ``private_api.store.retention``; this module only says what was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DataKind(StrEnum):
    """What a task leaves behind."""

    INPUT = "input"
    OUTPUT = "output"
    LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Retention:
    """The server's times in seconds, 0 being for ever; a model may have others for its own tasks."""

    input_seconds: float
    output_seconds: float
    log_seconds: float

    def seconds_of(self, kind: DataKind) -> float:
        """The time for one kind."""
        match kind:
            case DataKind.INPUT:
                return self.input_seconds
            case DataKind.OUTPUT:
                return self.output_seconds
            case DataKind.LOG:
                return self.log_seconds
