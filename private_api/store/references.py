"""Which blobs are still needed: the one answer to that question, for every door and for the sweeper."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, or_, select, true

from contracts.states import TERMINAL_STATES
from private_api.store.tables import model_versions, models, tasks


def unused_among(connection: Connection, keys: Collection[str]) -> list[str]:
    """Those of ``keys`` that nothing needs any more, in their order."""
    used = _used_by_tasks(connection, keys) | _used_by_models(connection, keys)
    return [key for key in keys if key not in used]


def _used_by_tasks(connection: Connection, keys: Collection[str]) -> set[str]:
    used: set[str] = set()
    for column, still_kept in (
        (tasks.c.input_key, tasks.c.input_purged_at.is_(None)),
        (tasks.c.output_key, tasks.c.output_purged_at.is_(None)),
        (tasks.c.pending_key, true()),
    ):
        query = select(column).where(column.in_(keys), still_kept)
        used |= set(connection.execute(query).scalars())
    return used


def _used_by_models(connection: Connection, keys: Collection[str]) -> set[str]:
    """Contents of present versions, and of older ones that an unfinished task is bound to."""
    unfinished = select(tasks.c.seq).where(
        tasks.c.model_id == models.c.id,
        tasks.c.version_id == model_versions.c.id,
        tasks.c.state.not_in(TERMINAL_STATES),
    )
    present = and_(model_versions.c.number == models.c.version, models.c.deleted_at.is_(None))
    query = (
        select(model_versions.c.content_key)
        .join(models, models.c.id == model_versions.c.model_id)
        .where(model_versions.c.content_key.in_(keys), or_(present, unfinished.exists()))
    )
    return set(connection.execute(query).scalars())
