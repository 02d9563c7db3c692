"""API keys: who may speak to the server, in which role. Only hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, false, func, insert, or_, select, update

from private_api.store.tables import api_keys, now_ms

# A key's last use is written at most this often: it is for people who clean up, not an audit log.
_LAST_USE_MS = 60_000


class Role(StrEnum):
    """What a key may do."""

    ADMIN = "admin"  # Everything that people do.
    USER = "user"  # Sends tasks and sees its own.
    WORKER = "worker"  # Takes leases; nothing else.


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """A key as it is kept: without its secret."""

    id: str
    name: str
    role: Role
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None
    # The models whose tasks a worker key may take; null: all.
    models: list[str] | None = None
    # Whether the last use on record is recent enough.
    use_is_noted: bool = False


_COLUMNS = [column for column in api_keys.c if column.name != "secret_sha256"]


def new_secret() -> str:
    """A fresh key, 256 bits strong."""
    return "isk_" + secrets.token_urlsafe(32)


def derived_secret(caller_secret: str, idempotency_key: str, fingerprint: str) -> str:
    """The same fresh key for the same request of the same caller: it need not be kept to be repeated."""
    material = f"{idempotency_key}\n{fingerprint}".encode()
    digest = hashlib.blake2b(material, key=caller_secret.encode()[:64], digest_size=32)
    return "isk_" + digest.hexdigest()


def add_key(  # Each is a property of the key.
    connection: Connection,
    *,
    name: str,
    role: Role,
    secret: str,
    expires_at: int | None = None,
    models: list[str] | None = None,
) -> ApiKey:
    """Make ``secret`` a valid key; ``models`` binds a worker key to these human-readable ids."""
    key_id = secrets.token_hex(8)
    connection.execute(
        insert(api_keys).values(
            id=key_id,
            name=name,
            role=role.value,
            secret_sha256=_hash(secret),
            created_at=now_ms(),
            expires_at=expires_at,
            models=models,
        )
    )
    row = connection.execute(select(*_COLUMNS).where(api_keys.c.id == key_id)).one()
    return ApiKey(**{**row._mapping, "role": Role(row.role)})


def find_key(connection: Connection, secret: str) -> ApiKey | None:
    """The valid key with this secret: neither revoked nor expired."""
    noted = func.coalesce(api_keys.c.last_used_at > now_ms() - _LAST_USE_MS, false())
    row = connection.execute(
        select(*_COLUMNS, noted.label("use_is_noted")).where(
            api_keys.c.secret_sha256 == _hash(secret),
            *is_valid(),
        )
    ).one_or_none()
    if row is None:
        return None
    return ApiKey(**{**row._mapping, "role": Role(row.role), "use_is_noted": bool(row.use_is_noted)})


def is_valid() -> tuple[ColumnElement[bool], ...]:
    """The rows of keys that open doors now."""
    return (
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now_ms()),
    )


def opens_doors(connection: Connection, key_id: str) -> bool:
    """Whether the key with this id is valid now."""
    found = connection.execute(select(api_keys.c.id).where(api_keys.c.id == key_id, *is_valid()))
    return found.first() is not None


def is_known(connection: Connection, secret: str) -> bool:
    """Whether this secret has ever been a key, valid or not."""
    found = connection.execute(select(api_keys.c.id).where(api_keys.c.secret_sha256 == _hash(secret)))
    return found.first() is not None


def touch_key(connection: Connection, key_id: str) -> None:
    """Note that the key has just been used."""
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now_ms()))


def list_keys(connection: Connection, *, after: str, limit: int) -> Sequence[ApiKey]:
    """All keys, revoked ones too, in the order of their ids."""
    query = select(*_COLUMNS).where(api_keys.c.id > after).order_by(api_keys.c.id).limit(limit)
    return [ApiKey(**{**row._mapping, "role": Role(row.role)}) for row in connection.execute(query)]


def revoke_key(connection: Connection, key_id: str) -> bool:
    """Make a key invalid from now on; returns whether there was such a valid key."""
    result = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now_ms())
    )
    return result.rowcount > 0


def _hash(secret: str) -> str:
    # Keys are 256 random bits: a plain hash cannot be searched, and a slow one would cost every request.
    return hashlib.sha256(secret.encode()).hexdigest()
