"""A task's log: bytes in order, over all its attempts, appended in chunks and read by offset."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from private_api.store.tables import log_chunks, tasks

_READ_ROWS = 16


def append_note(connection: Connection, task_id: str, log_size: int, note: str) -> None:
    """Add a line of ours to the log, which is ``log_size`` bytes long; the caller holds the transaction."""
    append_chunk(connection, task_id, log_size, note.encode())


def append_chunk(connection: Connection, task_id: str, log_size: int, data: bytes) -> None:
    """Add ``data`` to the log, which is ``log_size`` bytes long; the caller holds the transaction."""
    connection.execute(insert(log_chunks).values(task_id=task_id, start=log_size, data=data))
    connection.execute(update(tasks).where(tasks.c.id == task_id).values(log_size=log_size + len(data)))


def read_log(connection: Connection, task_id: str, offset: int, limit_bytes: int) -> bytes:
    """At most about ``limit_bytes`` of the log from ``offset`` on; empty past its end."""
    first = (
        select(log_chunks.c.start)
        .where(log_chunks.c.task_id == task_id, log_chunks.c.start <= offset)
        .order_by(log_chunks.c.start.desc())
        .limit(1)
    )
    start = connection.execute(first).scalar() or 0
    pieces: list[bytes] = []
    size = 0
    while size < limit_bytes:
        # A few rows at a time: each may be megabytes.
        rows = connection.execute(
            select(log_chunks.c.start, log_chunks.c.data)
            .where(log_chunks.c.task_id == task_id, log_chunks.c.start >= start)
            .order_by(log_chunks.c.start)
            .limit(_READ_ROWS)
        ).all()
        for row in rows:
            piece = bytes(row.data)[max(offset - row.start, 0) :]
            pieces.append(piece)
            size += len(piece)
        if len(rows) < _READ_ROWS:
            break
        start = rows[-1].start + 1
    return b"".join(pieces)[:limit_bytes]


def delete_log(connection: Connection, task_id: str) -> None:
    """Remove a task's log."""
    connection.execute(delete(log_chunks).where(log_chunks.c.task_id == task_id))
