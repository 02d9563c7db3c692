"""The calls about keys: ``client.keys``. All but ``own`` are for an admin."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from inference_server_client.results import Key, Page, read_page
from inference_server_client.transport import Call, Transport, segment


class Keys:
    """Make, list and revoke keys."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        name: str,
        *,
        role: str = "user",
        expires_at: datetime | None = None,
        models: Sequence[str] = (),
    ) -> Key:
        """Make a key (``role``: user, admin or worker); its ``secret`` is shown this once.

        ``models`` binds a worker key: it may take the tasks of these models only.
        """
        fields: dict[str, Any] = {"name": name, "role": role}
        if expires_at is not None:
            fields["expires_at"] = expires_at.isoformat()
        if models:
            fields["models"] = list(models)
        return Key.from_json(
            self._transport.json(Call(method="POST", path="/v1/keys", json=fields, creates=True))
        )

    def own(self) -> Key:
        """The key with which this is asked, whatever its role; never its secret."""
        return Key.from_json(self._transport.json(Call(method="GET", path="/v1/keys/self")))

    def page(self, *, limit: int = 100, cursor: str | None = None) -> Page[Key]:
        """Up to ``limit`` (1..1000) keys from ``cursor`` on, without their secrets."""
        query: dict[str, str | int | float] = {"limit": limit}
        if cursor is not None:
            query["cursor"] = cursor
        return read_page(
            self._transport.json(Call(method="GET", path="/v1/keys", query=query)), Key.from_json
        )

    def revoke(self, key_id: str) -> None:
        """From now on the key opens nothing."""
        self._transport.remove(f"/v1/keys/{segment(key_id)}")
