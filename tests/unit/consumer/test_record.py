"""The record that outlives a slot's process."""

from __future__ import annotations

from pathlib import Path

from consumer.node.record import Ending, Record, RecordFile
from contracts.reasons import ReasonCode
from tests.unit.consumer.consumer_leases import lease


def test_what_was_written_is_read_and_only_by_its_owner(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "attempt.json")
    record = Record(lease=lease(), workspace_id="0123456789abcdef")
    file.write(record)
    assert file.read() == record
    assert (tmp_path / "attempt.json").stat().st_mode & 0o777 == 0o600
    file.remove()
    assert file.read() is None
    file.remove()


def test_why_a_container_is_ended_is_added(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "attempt.json")
    ending = Ending(cause="PREVENTED", detail="why", code=ReasonCode.ENGINE_FAILED)
    # Without a record there is nothing to add to
    file.note_ending(ending)
    assert file.read() is None
    file.write(Record(lease=lease(), workspace_id="0123456789abcdef", log_begins_at=7))
    file.note_ending(ending)
    assert file.read() == Record(
        lease=lease(), workspace_id="0123456789abcdef", log_begins_at=7, ending=ending
    )


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    path = tmp_path / "attempt.json"
    for damage in ("", "{", "[]", '{"workspace_id": "x", "lease": {}}', '"x"'):
        path.write_text(damage)
        assert RecordFile(path).read() is None
