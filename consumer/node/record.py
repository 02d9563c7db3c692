"""The note that a slot keeps of the attempt it holds, so that its next life can go on with it.

The slot writes it before anything exists on the engine and removes it when the attempt's last word has been
said. It holds the lease's token, so only its owner may read it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from contracts.messages import Lease, MessageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One attempt: its lease, and the workspace that it runs in."""

    lease: Lease
    workspace_id: str


class RecordFile:
    """The record of one slot, on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, record: Record) -> None:
        """Replace the record in one step."""
        draft = self._path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"workspace_id": record.workspace_id, "lease": record.lease.to_json()}, file)
        draft.replace(self._path)

    def read(self) -> Record | None:
        """The record, None when there is none or it cannot be understood."""
        try:
            value = json.loads(self._path.read_bytes())
            return Record(lease=Lease.from_json(value["lease"]), workspace_id=str(value["workspace_id"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, MessageError) as error:
            # A record of another release, say. The lease ends by itself, and what it made is removed as a
            # leftover.
            _log.warning("the attempt record is unreadable: %s", error, extra={"action": "record_unreadable"})
            return None

    def remove(self) -> None:
        """Forget the attempt."""
        self._path.unlink(missing_ok=True)
