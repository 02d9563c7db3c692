"""The tables, as SQLAlchemy Core sees them, and the clock that all of them share.

Times are whole milliseconds since 1970 by the database's clock, so that the same comparison means the
same on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData()

# SQLite gives rowids to INTEGER primary keys only.
_BigId = BigInteger().with_variant(Integer, "sqlite")

models = Table(
    "models",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),
    Column("uid", String(32), nullable=False, unique=True),
    # In the order of its bytes on every server, whatever the language that its database was made with.
    Column(
        "human_readable_id",
        String(128).with_variant(String(128, collation="C"), "postgresql"),
        nullable=False,
    ),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("use_gpu", Boolean, nullable=False),
    Column("pull_policy", String(16), nullable=False),
    Column("profile", String(16), nullable=False),
    Column("network", Boolean, nullable=False),
    Column("tmp_exec", Boolean, nullable=False),
    Column("allow_empty_output", Boolean, nullable=False),
    Column("input_mountpoint", String(255), nullable=False),
    Column("output_mountpoint", String(255), nullable=False),
    Column("model_mountpoint", String(255), nullable=False),
    Column("limits", JSON, nullable=False),
    # What it asks of a node beyond its limits: null asks nothing.
    Column("gpu_memory_bytes", BigInteger),
    Column("node_labels", JSON(none_as_null=True)),
    # How long the data of its ended tasks is kept; null follows the server, 0 keeps it for ever.
    Column("input_retention_seconds", Float),
    Column("output_retention_seconds", Float),
    Column("log_retention_seconds", Float),
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
)
# A deleted model's id is free again; its tasks still name it.
Index(
    "models_live_id",
    models.c.human_readable_id,
    unique=True,
    sqlite_where=models.c.deleted_at.is_(None),
    postgresql_where=models.c.deleted_at.is_(None),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=True),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("container_tag", String(255), nullable=False),
    Column("image_id", String(128)),
    Column("image_digest", String(512)),
    Column("content_key", String(128)),
    Column("content_size", BigInteger),
    Column("content_sha256", String(64)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("model_id", "number"),
)

tasks = Table(
    "tasks",
    metadata,
    # The order of arrival; never shown.
    Column("seq", _BigId, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("owner_id", String(32), nullable=False),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("version_id", ForeignKey("model_versions.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("phase", String(16)),
    Column("reason_code", String(32)),
    Column("reason", Text),
    Column("exit_code", BigInteger),
    # Attempts begun, and those of them that our infrastructure spoiled.
    Column("attempt", Integer, nullable=False),
    Column("spoiled", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    # Since when it waits: its arrival, or its last return to the queue.
    Column("queued_at", BigInteger, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("lease_id", String(32), unique=True),
    # The fencing token only ever grows.
    Column("token", Integer, nullable=False),
    Column("lease_expires_at", BigInteger),
    Column("phase_deadline_at", BigInteger),
    Column("node", String(255)),
    Column("slot", String(64)),
    # The worker key that holds, or held, its lease: a lease is nobody else's.
    Column("key_id", String(32)),
    Column("input_key", String(128), nullable=False),
    Column("input_size", BigInteger, nullable=False),
    Column("input_sha256", String(64), nullable=False),
    # Uploaded under the present lease, not yet committed.
    Column("pending_key", String(128)),
    Column("pending_size", BigInteger),
    Column("pending_sha256", String(64)),
    Column("output_key", String(128)),
    Column("output_size", BigInteger),
    Column("output_sha256", String(64)),
    Column("image_digest", String(512)),
    Column("progress_fraction", Float),
    Column("progress_message", Text),
    # log_base: where the present attempt's part of the log begins.
    Column("log_size", BigInteger, nullable=False),
    Column("log_base", BigInteger, nullable=False),
    Column("durations", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    # Set when the task ends, so that a later change of the settings moves nothing; null is for ever.
    Column("input_expires_at", BigInteger),
    Column("output_expires_at", BigInteger),
    Column("log_expires_at", BigInteger),
    # When it was parted with.
    Column("input_purged_at", BigInteger),
    Column("output_purged_at", BigInteger),
    Column("log_purged_at", BigInteger),
    # The X-Request-Id with which the task was sent: a label for people who read logs.
    Column("request_id", String(64)),
)


def _partial_index(name: str, condition: ColumnElement[bool], *columns: ColumnElement[Any]) -> None:
    Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


_queued = tasks.c.state == "queued"
_leased = tasks.c.state.in_(["starting", "running"])
# not_before only comes along, so that counting what is due reads nothing but the index.
_partial_index("tasks_queue", _queued, tasks.c.kind, tasks.c.priority.desc(), tasks.c.seq, tasks.c.not_before)
# Each model's own line: where some of them do not fit a slot, the first that does is found without a walk
# past all the tasks of the others.
_partial_index(
    "tasks_queue_of_model",
    _queued,
    tasks.c.kind,
    tasks.c.model_id,
    tasks.c.priority.desc(),
    tasks.c.seq,
    tasks.c.not_before,
)
_partial_index("tasks_waiting", _queued, tasks.c.queued_at)
_partial_index("tasks_leases", _leased, tasks.c.lease_expires_at)
for _kind in ("input", "output", "log"):
    _expires_at = tasks.c[f"{_kind}_expires_at"]
    _due = tasks.c[f"{_kind}_purged_at"].is_(None) & _expires_at.is_not(None)
    _partial_index(f"tasks_{_kind}_expiry", _due, _expires_at)
_partial_index("tasks_output", tasks.c.output_key.is_not(None), tasks.c.output_key)
_partial_index("tasks_pending", tasks.c.pending_key.is_not(None), tasks.c.pending_key)
Index("tasks_input", tasks.c.input_key)
Index("tasks_of_owner", tasks.c.owner_id, tasks.c.seq)
Index("tasks_of_owner_by_state", tasks.c.owner_id, tasks.c.state, tasks.c.seq)
Index("tasks_of_model", tasks.c.model_id, tasks.c.seq)
Index("tasks_of_model_by_state", tasks.c.model_id, tasks.c.state, tasks.c.seq)
Index("tasks_by_state", tasks.c.state, tasks.c.seq)
Index("tasks_by_age", tasks.c.created_at)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("task_id", String(32), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("secret_sha256", String(64), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    # The models (their human-readable ids) whose tasks a worker key may take; null: all.
    Column("models", JSON(none_as_null=True)),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("owner_id", String(32), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
Index("idempotency_by_age", idempotency.c.created_at)

workers = Table(
    "workers",
    metadata,
    Column("node", String(255), primary_key=True),
    Column("slot", String(64), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("heard_at", BigInteger, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(63), primary_key=True),
    # One life of a consumer's directory; two that claim one name are told apart by it.
    Column("instance", String(64), nullable=False),
    Column("key_id", String(32), nullable=False),
    # Its last word about itself, as ``contracts.nodes.NodeReport``.
    Column("report", JSON, nullable=False),
    # What an operator wants, and whether the node has said farewell.
    Column("draining", Boolean, nullable=False),
    Column("left", Boolean, nullable=False),
    Column("first_heard_at", BigInteger, nullable=False),
    Column("heard_at", BigInteger, nullable=False),
)

# One row per periodic duty: when it was last performed, by whichever process.
duties = Table(
    "duties",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("performed_at", BigInteger, nullable=False),
)


class now_ms(FunctionElement[int]):  # noqa: N801 - Reads as the SQL function that it is.
    """The database's clock, in milliseconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_on_sqlite(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_on_postgresql(_element: Any, _compiler: Any, **_options: Any) -> str:
    # One moment for each statement, as on SQLite; only so can a comparison with it use an index.
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)"
