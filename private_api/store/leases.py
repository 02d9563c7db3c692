"""Leases: one worker owns one attempt of one task for a short time, and proves it by lease id, token and key.

Every word about an attempt first finds the row that the lease still holds, inside the transaction that
changes it; no row means that somebody else was first, and ``StaleLeaseError``. What becomes of a spoiled
attempt is decided in ``private_api.decisions.retries``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from contracts.messages import BlobFacts, Completion, Failure, Heartbeat, HeartbeatAnswer, Progress
from contracts.reasons import ReasonCode
from contracts.states import LEASED_STATES, Phase, TaskState, check_moves, state_of_phase
from contracts.timing import LEASE_SECONDS, MAX_ATTEMPTS
from private_api.decisions.phases import follows, phase_limit_seconds, renews_limit
from private_api.decisions.retention import Retention
from private_api.decisions.retries import Cancel, Requeue, after_failure
from private_api.store.logs import append_chunk, append_note
from private_api.store.models import pin_image
from private_api.store.proofs import Proof
from private_api.store.retention import ended_now
from private_api.store.tables import model_versions, models, now_ms, tasks
from private_api.store.workers import hear_of_slot

# What a zip adds to each file: two headers, its name twice, and room for incompressible data.
_ZIP_ENTRY_BYTES = 16 * 1024
_OVER: dict[str, Any] = {"phase": None, "phase_deadline_at": None, "lease_expires_at": None}
_NO_PENDING: dict[str, Any] = {"pending_key": None, "pending_size": None, "pending_sha256": None}


class StaleLeaseError(Exception):
    """The lease is over: it expired, was handed to another worker, or its task has ended or is gone."""


class OutputMismatchError(Exception):
    """The worker commits an output that is not the one it uploaded."""


@dataclass(frozen=True, kw_only=True)
class LeasedTask:
    """What a lease's holder may know of its task's data."""

    task_id: str
    input_key: str
    input: BlobFacts
    content_key: str | None
    content: BlobFacts | None
    cancel_requested: bool
    max_output_zip_bytes: int


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """What the end of an attempt means for others: who waits for it, and which blobs nobody needs now."""

    task_id: str
    attempt: int
    kind: str
    # What has become of the task; why, and the seconds by phase, as the worker or the reaper said it.
    state: TaskState
    reason_code: ReasonCode | None = None
    durations: dict[str, float] = field(default_factory=dict)
    # The X-Request-Id with which the task was sent.
    request_id: str | None = None
    # False for a word that was said before: it changed nothing.
    is_news: bool = True
    # When a requeued task may run again, counted from now.
    delay_seconds: float = 0.0
    garbage: list[str] = field(default_factory=list)

    @property
    def requeued(self) -> bool:
        """Whether the task waits for its next attempt."""
        return self.state is TaskState.QUEUED


def held_rows() -> Select[Any]:
    """Rows under a lease, with what decisions about them need, locked until the transaction ends."""
    return _LEASED_ROWS.with_for_update(of=tasks)


_LEASED_ROWS = (
        select(
            tasks.c.seq, tasks.c.id, tasks.c.kind, tasks.c.node, tasks.c.slot,
            tasks.c.state, tasks.c.phase, tasks.c.attempt,
            tasks.c.spoiled, tasks.c.token, tasks.c.version_id, tasks.c.cancel_requested, tasks.c.log_size,
            tasks.c.log_base, tasks.c.started_at, tasks.c.request_id,
            tasks.c.input_key, tasks.c.input_size, tasks.c.input_sha256,
            tasks.c.pending_key, tasks.c.pending_size, tasks.c.pending_sha256, models.c.limits,
            model_versions.c.content_key, model_versions.c.content_size, model_versions.c.content_sha256,
        )
        .join(models, models.c.id == tasks.c.model_id)
        .join(model_versions, model_versions.c.id == tasks.c.version_id)
        .where(tasks.c.state.in_(LEASED_STATES))
    )  # fmt: skip


def find_leased(connection: Connection, proof: Proof) -> LeasedTask:
    """The data of the task under this lease, without locking it; raises ``StaleLeaseError``."""
    row = _held(connection, proof, _LEASED_ROWS)
    content = None
    if row.content_key:
        content = BlobFacts(size_bytes=row.content_size, sha256=row.content_sha256)
    limits = row.limits
    return LeasedTask(
        task_id=row.id,
        input_key=row.input_key,
        input=BlobFacts(size_bytes=row.input_size, sha256=row.input_sha256),
        content_key=row.content_key,
        content=content,
        cancel_requested=row.cancel_requested,
        max_output_zip_bytes=limits["output_bytes"] + limits["output_files"] * _ZIP_ENTRY_BYTES,
    )


def renew(connection: Connection, proof: Proof, heartbeat: Heartbeat) -> tuple[str, HeartbeatAnswer]:
    """Renew the lease and note what the worker says of itself; returns the task's id and the answer.

    Raises ``StaleLeaseError``.
    """
    row = _held(connection, proof)
    news: dict[str, Any] = {"lease_expires_at": now_ms() + int(LEASE_SECONDS * 1000)}
    earlier = Phase(row.phase)
    if heartbeat.phase is not earlier and follows(heartbeat.phase, earlier):
        news["phase"] = heartbeat.phase.value
        if renews_limit(heartbeat.phase, earlier):
            limit_seconds = phase_limit_seconds(heartbeat.phase, row.limits["time_seconds"])
            news["phase_deadline_at"] = now_ms() + int(limit_seconds * 1000)
        if state_of_phase(heartbeat.phase) is TaskState.RUNNING and row.state == TaskState.STARTING:
            news |= {"state": TaskState.RUNNING.value, "started_at": row.started_at or now_ms()}
    news |= _progress(heartbeat.progress)
    if heartbeat.image is not None:
        news["image_digest"] = heartbeat.image.digest or heartbeat.image.image_id
        pin_image(connection, row.version_id, heartbeat.image)
    connection.execute(update(tasks).where(tasks.c.seq == row.seq).values(news))
    hear_of_slot(connection, row.node, row.slot, row.kind)
    stored = min(row.log_size - row.log_base, row.limits["log_bytes"])
    return row.id, HeartbeatAnswer(cancel_requested=row.cancel_requested, log_bytes=stored)


def append_log(connection: Connection, proof: Proof, offset: int, data: bytes) -> tuple[str, int]:
    """Append to the attempt's log what is new in ``data``, which starts at ``offset`` bytes of that log.

    Returns the task's id and how many bytes of this attempt's log are stored. A gap is refused by storing
    nothing; past the model's limit the rest is dropped, once with a note.
    """
    row = _held(connection, proof)
    limit = row.limits["log_bytes"]
    # What was stored of this attempt; our own note about the limit lies beyond it.
    stored = min(row.log_size - row.log_base, limit)
    new = data[max(stored - offset, 0) :] if offset <= stored else b""
    # Each attempt may fill the limit, but a task that is handed back for ever may not fill the database.
    room = min(limit - stored, MAX_ATTEMPTS * limit - row.log_size)
    if new and room > 0:
        append_chunk(connection, row.id, row.log_size, new[:room])
        stored += len(new[:room])
        if len(new) > room:
            append_note(
                connection,
                row.id,
                row.log_size + room,
                "\n[the log's limit is reached; the rest is not kept]\n",
            )
    return row.id, stored


def note_upload(connection: Connection, proof: Proof, key: str, facts: BlobFacts) -> str | None:
    """Remember an uploaded output until it is committed; returns the key of one uploaded before."""
    row = _held(connection, proof)
    connection.execute(
        update(tasks)
        .where(tasks.c.seq == row.seq)
        .values(pending_key=key, pending_size=facts.size_bytes, pending_sha256=facts.sha256)
    )
    earlier: str | None = row.pending_key
    return earlier


def commit_output(
    connection: Connection, proof: Proof, completion: Completion, retention: Retention
) -> AttemptEnd:
    """End the task as succeeded with the uploaded output; the same words again change nothing.

    Raises ``StaleLeaseError``, ``OutputMismatchError``.
    """
    try:
        row = _held(connection, proof)
    except StaleLeaseError:
        done = _committed(connection, proof, completion)
        if done is None:
            raise
        return done
    if row.pending_key is None or completion.output != BlobFacts(
        size_bytes=row.pending_size, sha256=row.pending_sha256
    ):
        raise OutputMismatchError
    # A small task may be done before a heartbeat has said that it runs.
    check_moves(TaskState(row.state), TaskState.RUNNING, TaskState.SUCCEEDED)
    ran_ms = int(completion.durations.get(Phase.RUNNING, 0.0) * 1000)
    connection.execute(
        update(tasks)
        .where(tasks.c.seq == row.seq)
        .values(
            state=TaskState.SUCCEEDED.value,
            exit_code=completion.exit_code,
            output_key=row.pending_key,
            output_size=row.pending_size,
            output_sha256=row.pending_sha256,
            durations=completion.durations,
            started_at=row.started_at or now_ms() - ran_ms,
            **_progress(completion.progress),
            **ended_now(retention),
            **_NO_PENDING,
            **_OVER,
        )
    )
    return AttemptEnd(
        task_id=row.id,
        attempt=row.attempt,
        kind=row.kind,
        state=TaskState.SUCCEEDED,
        durations=completion.durations,
        request_id=row.request_id,
    )


def fail_attempt(connection: Connection, proof: Proof, failure: Failure, retention: Retention) -> AttemptEnd:
    """End the attempt as the worker says, and the task with it unless it deserves another attempt."""
    return end_attempt(connection, _held(connection, proof), failure, retention)


def end_attempt(connection: Connection, row: Row[Any], failure: Failure, retention: Retention) -> AttemptEnd:
    """End the attempt of a row from ``held_rows``; the reaper comes in here as well."""
    code = failure.reason_code
    decision = after_failure(code, spoiled=row.spoiled, cancel_requested=row.cancel_requested)
    values: dict[str, Any] = {
        "reason_code": code.value,
        "reason": failure.reason,
        "exit_code": failure.exit_code,
        "durations": failure.durations,
        **_progress(failure.progress),
        **_NO_PENDING,
        **_OVER,
    }
    if isinstance(decision, Requeue):
        values |= {
            "state": TaskState.QUEUED.value,
            "spoiled": decision.spoiled,
            "queued_at": now_ms(),
            "not_before": now_ms() + int(decision.delay_seconds * 1000),
            "progress_fraction": None,
            "progress_message": None,
            "started_at": None,
            "lease_id": None,
        }
        note = f"\n[attempt {row.attempt} ended: {failure.reason} The task runs again.]\n"
        append_note(connection, row.id, row.log_size, note)
    elif isinstance(decision, Cancel):
        values |= {"state": TaskState.CANCELED.value, **ended_now(retention)}
        values |= {"reason_code": ReasonCode.CANCELED_BY_USER.value, "reason": "Canceled on request."}
    else:
        values |= {"state": TaskState.FAILED.value, **ended_now(retention)}
    check_moves(TaskState(row.state), TaskState(values["state"]))
    connection.execute(update(tasks).where(tasks.c.seq == row.seq).values(values))
    return AttemptEnd(
        task_id=row.id,
        attempt=row.attempt,
        kind=row.kind,
        state=TaskState(values["state"]),
        reason_code=code,
        durations=failure.durations,
        request_id=row.request_id,
        delay_seconds=decision.delay_seconds if isinstance(decision, Requeue) else 0.0,
        garbage=[row.pending_key] if row.pending_key else [],
    )


def _progress(progress: Progress | None) -> dict[str, Any]:
    if progress is None:
        return {}
    return {"progress_fraction": progress.fraction, "progress_message": progress.message}


def _held(connection: Connection, proof: Proof, rows: Select[Any] | None = None) -> Row[Any]:
    if rows is None:
        rows = held_rows()
    row = connection.execute(rows.where(proof.condition)).one_or_none()
    if row is None:
        raise StaleLeaseError
    return row


def _committed(connection: Connection, proof: Proof, completion: Completion) -> AttemptEnd | None:
    # The answer to the first commit may have been lost on its way; its repetition is no error.
    row = connection.execute(
        select(tasks.c.id, tasks.c.attempt, tasks.c.kind).where(
            proof.condition,
            tasks.c.state == TaskState.SUCCEEDED.value,
            tasks.c.output_sha256 == completion.output.sha256,
        )
    ).one_or_none()
    if row is None:
        return None
    return AttemptEnd(
        task_id=row.id, attempt=row.attempt, kind=row.kind, state=TaskState.SUCCEEDED, is_news=False
    )
