"""What a worker shows for the lease that it holds; ``leases`` asks for it with each word about an attempt."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_

from private_api.store.tables import tasks


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a worker shows for its lease: its id and token, and the key with which it comes.

    To any other key the lease does not exist, even one that knows both.
    """

    lease_id: str
    token: int
    key_id: str

    @property
    def condition(self) -> ColumnElement[bool]:
        """The row of the task that was claimed so."""
        # A lease of the release before this one names no key.
        key = or_(tasks.c.key_id == self.key_id, tasks.c.key_id.is_(None))
        return (tasks.c.lease_id == self.lease_id) & (tasks.c.token == self.token) & key
