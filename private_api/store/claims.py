"""Claims: how a free slot gets the next task that fits it.

The claim is a compare-and-set; two slots never get the same task, however often they are told of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import LABEL_STYLE_TABLENAME_PLUS_COL, Connection, func, select, update

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
from contracts.states import LEASED_STATES, Phase, TaskState
from contracts.timing import LEASE_SECONDS
from private_api.decisions.phases import phase_limit_seconds
from private_api.decisions.placement import has_kind, offer_of
from private_api.store.next_task import Slot, next_task
from private_api.store.nodes import find_report
from private_api.store.tables import model_versions, models, now_ms, tasks

# What a node may hold at once for each of its slots: one attempt, and one more that it lost and that the
# server does not know to be over yet.
_LEASES_OF_SLOT = 2
# The same for all slots of a node that never reported how many it has.
_LEASES_OF_UNKNOWN = 256


class NodeDrainingError(Exception):
    """An operator wants the slot's node to take no tasks."""


class ForeignNodeError(Exception):
    """The node is known under another key."""


class TooManyLeasesError(Exception):
    """The node holds more leases than it has slots for."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A task that a slot got: its lease, and how long it had been queued."""

    lease: Lease
    queued_seconds: float


def slot_of(
    connection: Connection, request: ClaimRequest, *, key_id: str, bound_to: Collection[str] | None
) -> Slot:
    """Who asks: the key, the models that it is bound to (null: all), and what the node said of the slot.

    Raises ``NodeDrainingError``, ``ForeignNodeError``.
    """
    last = find_report(connection, request.node, key_id)
    offers, most_leases = None, _LEASES_OF_UNKNOWN
    if last is not None:
        if last.is_foreign:
            raise ForeignNodeError
        if last.draining:
            raise NodeDrainingError
        # A claim that is held, or rung for, may be older than what its node now knows about its disk.
        room = last.report.disk.has_room
        kinds = [kind for kind in request.kinds if room and has_kind(last.report, request.slot, kind)]
        offers = [offer_of(last.report, request.slot, kind) for kind in kinds]
        most_leases = _LEASES_OF_SLOT * len(last.report.slots)
    models = None if bound_to is None else frozenset(bound_to)
    return Slot(key_id=key_id, node=request.node, models=models, offers=offers, most_leases=most_leases)


def has_work(connection: Connection, request: ClaimRequest, slot: Slot) -> bool:
    """Whether a claim would find a task now; asked without a lock, so that idle slots disturb nobody."""
    return next_task(connection, request.kinds, slot, lock=False) is not None


def left_over(connection: Connection, request: ClaimRequest) -> SlotKind | None:
    """The kind of the task that a claim's hint named, where a slot that it fits could claim it now."""
    query = select(tasks.c.kind).where(
        tasks.c.id == request.task_id,
        tasks.c.state == TaskState.QUEUED.value,
        tasks.c.kind.in_(request.kinds),
        tasks.c.not_before <= now_ms(),
    )
    kind = connection.execute(query).scalar()
    return None if kind is None else SlotKind(kind)


def claim_task(connection: Connection, request: ClaimRequest, slot: Slot) -> Claim | None:
    """Lease the next task that fits the slot, or null. The caller holds the transaction.

    Raises ``TooManyLeasesError``.
    """
    seq = next_task(connection, request.kinds, slot, lock=True)
    if seq is None:
        return None
    if _count_leases(connection, request.node, slot.key_id) >= slot.most_leases:
        raise TooManyLeasesError
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
            key_id=slot.key_id,
            reason_code=None,
            reason=None,
        )
    )
    return _read_claim(connection, lease_id)


def _count_leases(connection: Connection, node: str, key_id: str) -> int:
    held = select(func.count()).where(
        tasks.c.state.in_(LEASED_STATES), tasks.c.node == node, tasks.c.key_id == key_id
    )
    return connection.execute(held).scalar_one()


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
