"""The note that a slot keeps of the attempt it holds, so that its next life can go on with it.

The slot writes it before anything exists on the engine and removes it when the attempt's last word has been
said. In between an attempt adds why it is about to kill its container. It holds the lease's token, so only
its owner may read it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts.messages import Lease, MessageError
from contracts.reasons import ReasonCode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why we end a container; its exit code tells the next life only that somebody did.

    ``cause`` names a ``Stop`` of the attempt's; ``code`` is set where the cause brings its own.
    """

    cause: str
    detail: str
    code: ReasonCode | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One attempt: its lease, and the workspace that it runs in."""

    lease: Lease
    workspace_id: str
    # How much of the attempt's log is of containers that are no more: this one's begins behind it.
    log_begins_at: int = 0
    ending: Ending | None = None


class RecordFile:
    """The record of one slot, on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, record: Record) -> None:
        """Replace the record in one step; raises ``OSError``."""
        draft = self._path.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(_to_json(record), file)
        draft.replace(self._path)

    def note_ending(self, ending: Ending) -> None:
        """Add why the container is about to be ended.

        A disk that takes no note must not keep a container alive: the next life then takes it for an
        attempt that the machine ended.
        """
        record = self.read()
        if record is None:
            return
        try:
            self.write(replace(record, ending=ending))
        except OSError as error:
            _log.warning("the record takes no note: %s", error, extra={"action": "record_unwritable"})

    def read(self) -> Record | None:
        """The record, None when there is none or it cannot be understood."""
        try:
            return _from_json(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, MessageError) as error:
            # A record of another release, say. The lease ends by itself, and what it made is removed as a
            # leftover.
            _log.warning("the attempt record is unreadable: %s", error, extra={"action": "record_unreadable"})
            return None

    def remove(self) -> None:
        """Forget the attempt."""
        self._path.unlink(missing_ok=True)


def _to_json(record: Record) -> dict[str, Any]:
    ending = record.ending
    return {
        "workspace_id": record.workspace_id,
        "lease": record.lease.to_json(),
        "log_begins_at": record.log_begins_at,
        "ending": ending and {"cause": ending.cause, "detail": ending.detail, "code": ending.code},
    }


def _from_json(value: Any) -> Record:
    ending = value.get("ending")
    return Record(
        lease=Lease.from_json(value["lease"]),
        workspace_id=str(value["workspace_id"]),
        log_begins_at=int(value.get("log_begins_at", 0)),
        ending=None
        if ending is None
        else Ending(
            cause=str(ending["cause"]),
            detail=str(ending["detail"]),
            code=None if ending["code"] is None else ReasonCode(ending["code"]),
        ),
    )
