"""Claims: how a free slot gets the next task that fits it, and which slots have been heard of.

The claim is a compare-and-set; two slots never get the same task, however often they are told of it.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Connection, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.messages import (
    BlobFacts,
    ClaimRequest,
    ImageSpec,
    Lease,
    Limits,
    MountPoints,
    PullPolicy,
    Sandbox,
    SandboxProfile,
    SlotKind,
)
from contracts.states import Phase, TaskState
from contracts.timing import LEASE_SECONDS
from private_api.decisions.phases import phase_limit_seconds
from private_api.store.tables import model_versions, models, now_ms, tasks, workers

# A slot that asks for work over and over is written down at most this often.
_HEARD_MS = 10_000


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A task that a slot got: its lease, and how long it had been queued."""

    lease: Lease
    queued_seconds: float


def has_work(connection: Connection, request: ClaimRequest) -> bool:
    """Whether a claim would find a task now; asked without a lock, so that idle slots disturb nobody."""
    return _next_task(connection, request, lock=False) is not None


def claim_task(connection: Connection, request: ClaimRequest) -> Claim | None:
    """Lease the next task that fits the slot, or null. The caller holds the transaction."""
    seq = _next_task(connection, request, lock=True)
    if seq is None:
        return None
    lease_id = secrets.token_hex(16)
    connection.execute(
        update(tasks)
        .where(tasks.c.seq == seq, tasks.c.state == TaskState.QUEUED.value)
        .values(
            state=TaskState.STARTING.value,
            phase=Phase.FETCHING.value,
            phase_deadline_at=now_ms() + int(phase_limit_seconds(Phase.FETCHING, 0) * 1000),
            attempt=tasks.c.attempt + 1,
            token=tasks.c.token + 1,
            lease_id=lease_id,
            lease_expires_at=now_ms() + int(LEASE_SECONDS * 1000),
            log_base=tasks.c.log_size,
            node=request.node,
            slot=request.slot,
            reason_code=None,
            reason=None,
        )
    )
    return _read_claim(connection, lease_id)


def worker_is_noted(connection: Connection, request: ClaimRequest) -> bool:
    """Whether this slot has been written down recently enough."""
    query = select(func.count()).where(
        workers.c.node == request.node,
        workers.c.slot == request.slot,
        workers.c.kind.in_(request.kinds),
        workers.c.heard_at > now_ms() - _HEARD_MS,
    )
    return connection.execute(query).scalar_one() >= len(request.kinds)


def note_worker(connection: Connection, request: ClaimRequest) -> None:
    """Remember that this slot is alive and asks for work."""
    for kind in request.kinds:
        same = (
            (workers.c.node == request.node)
            & (workers.c.slot == request.slot)
            & (workers.c.kind == kind.value)
        )
        changed = connection.execute(update(workers).where(same).values(heard_at=now_ms()))
        if not changed.rowcount:
            values = {"node": request.node, "slot": request.slot, "kind": kind.value, "heard_at": now_ms()}
            # The same slot may ask twice at its first moment; either request's note will do.
            with contextlib.suppress(IntegrityError), connection.begin_nested():
                connection.execute(insert(workers).values(values))


def hear_of_slot(connection: Connection, node: str, slot: str, kind: str) -> None:
    """Note that a slot at work is alive, at most every ten seconds."""
    connection.execute(
        update(workers)
        .where(
            workers.c.node == node,
            workers.c.slot == slot,
            workers.c.kind == kind,
            workers.c.heard_at < now_ms() - _HEARD_MS,
        )
        .values(heard_at=now_ms())
    )


def _next_task(connection: Connection, request: ClaimRequest, *, lock: bool) -> int | None:
    # One question for each kind: the index holds each kind in order, and the better of two is soon told.
    best: tuple[int, int] | None = None
    for kind in request.kinds:
        row = connection.execute(_next_of_kind(kind, lock=lock)).first()
        if row is not None and (best is None or (-row.priority, row.seq) < best):
            best = (-row.priority, row.seq)
    return None if best is None else best[1]


def _next_of_kind(kind: SlotKind, *, lock: bool) -> Select[Any]:
    query = (
        select(tasks.c.seq, tasks.c.priority)
        .where(
            tasks.c.state == TaskState.QUEUED.value,
            tasks.c.kind == kind.value,
            tasks.c.not_before <= now_ms(),
        )
        .order_by(tasks.c.priority.desc(), tasks.c.seq)
        .limit(1)
    )
    # PostgreSQL: racing claims take different rows instead of waiting. SQLite has one writer anyway.
    return query.with_for_update(skip_locked=True) if lock else query


def _read_claim(connection: Connection, lease_id: str) -> Claim | None:
    row = connection.execute(
        select(tasks, models, model_versions, (now_ms() - tasks.c.queued_at).label("queued_ms"))
        .set_label_style(LABEL_STYLE_TABLENAME_PLUS_COL)
        .join(models, models.c.id == tasks.c.model_id)
        .join(model_versions, model_versions.c.id == tasks.c.version_id)
        .where(tasks.c.lease_id == lease_id)
    ).one_or_none()
    if row is None:
        return None
    content = None
    if row.model_versions_content_key:
        content = BlobFacts(
            size_bytes=row.model_versions_content_size, sha256=row.model_versions_content_sha256
        )
    lease = Lease(
        lease_id=lease_id,
        token=row.tasks_token,
        lease_seconds=LEASE_SECONDS,
        task_id=row.tasks_id,
        attempt=row.tasks_attempt,
        model=row.models_human_readable_id,
        model_version=row.model_versions_number,
        image=ImageSpec(
            tag=row.model_versions_container_tag,
            image_id=row.model_versions_image_id,
            digest=row.model_versions_image_digest,
            pull_policy=PullPolicy(row.models_pull_policy),
        ),
        sandbox=Sandbox(
            profile=SandboxProfile(row.models_profile),
            network=row.models_network,
            tmp_exec=row.models_tmp_exec,
        ),
        # What it was queued for, whatever the model has become since.
        use_gpu=row.tasks_kind == SlotKind.GPU,
        mounts=MountPoints(
            input=row.models_input_mountpoint,
            output=row.models_output_mountpoint,
            model=row.models_model_mountpoint,
        ),
        limits=Limits.from_json(row.models_limits),
        allow_empty_output=row.models_allow_empty_output,
        input=BlobFacts(size_bytes=row.tasks_input_size, sha256=row.tasks_input_sha256),
        content=content,
        request_id=row.tasks_request_id,
    )
    return Claim(lease=lease, queued_seconds=max(0, row.queued_ms) / 1000)
