"""Models and their versions: what is registered, under which id, with which image and static content.

A version is an image and a content; it is never changed, except that the image's id is pinned once known.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from contracts.messages import BlobFacts, ImageSpec, PullPolicy, ResolvedImage, SandboxProfile, SlotKind
from contracts.nodes import Wanted
from contracts.states import LEASED_STATES, TaskState
from private_api.decisions.placement import Requirement, requirement_of
from private_api.store.database import current_ms
from private_api.store.tables import model_versions, models, now_ms, tasks


class ModelExistsError(Exception):
    """The id is taken."""


class ModelInUseError(Exception):
    """The model has tasks that have not ended."""


@dataclass(frozen=True, kw_only=True)
class StoredContent:
    """Static content in the blob store."""

    key: str
    facts: BlobFacts


@dataclass(frozen=True, kw_only=True)
class Model:
    """A registered model with its present version."""

    id: int
    uid: str
    human_readable_id: str
    description: str
    enabled: bool
    use_gpu: bool
    pull_policy: PullPolicy
    profile: SandboxProfile
    network: bool
    tmp_exec: bool
    allow_empty_output: bool
    input_mountpoint: str
    output_mountpoint: str
    model_mountpoint: str
    limits: dict[str, Any]
    gpu_memory_bytes: int | None
    node_labels: dict[str, str] | None
    input_retention_seconds: float | None
    output_retention_seconds: float | None
    log_retention_seconds: float | None
    version: int
    version_id: int
    container_tag: str
    image_id: str | None
    image_digest: str | None
    content: StoredContent | None
    created_at: int
    updated_at: int

    @property
    def kind(self) -> SlotKind:
        """The kind of slot that runs it."""
        return SlotKind.GPU if self.use_gpu else SlotKind.CPU

    @property
    def asked(self) -> Requirement:
        """What it asks of a slot."""
        return requirement_of(self.kind, self.limits, self.gpu_memory_bytes, self.node_labels)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A model that nodes may have ready before a task asks for it, and what it asks of their slots."""

    asked: Requirement
    wanted: Wanted


_COLUMNS = (
    models,
    model_versions.c.id.label("version_id"),
    model_versions.c.container_tag,
    model_versions.c.image_id,
    model_versions.c.image_digest,
    model_versions.c.content_key,
    model_versions.c.content_size,
    model_versions.c.content_sha256,
)
_LIVE = (
    select(*_COLUMNS)
    .join(
        model_versions,
        (model_versions.c.model_id == models.c.id) & (model_versions.c.number == models.c.version),
    )
    .where(models.c.deleted_at.is_(None))
)


def find_model(
    connection: Connection, human_readable_id: str, *, lock: Literal["shared", "exclusive"] | None = None
) -> Model | None:
    """The live model with this id; with ``lock`` it stays as it is until the transaction ends."""
    wanted = models.c.human_readable_id == human_readable_id
    if lock:
        # In a statement of its own: PostgreSQL, having waited for a change of the model, would look for the
        # new version among the rows that were there before it, and find nothing.
        held = select(models.c.id).where(wanted, models.c.deleted_at.is_(None))
        if connection.execute(held.with_for_update(read=lock == "shared")).first() is None:
            return None
    row = connection.execute(_LIVE.where(wanted)).one_or_none()
    return None if row is None else _model(row)


def list_models(
    connection: Connection, *, after: str, limit: int, only: Collection[str] | None = None
) -> Sequence[Model]:
    """Live models in the order of their ids, from the one after ``after`` on; ``only`` these, null: all."""
    query = _LIVE.where(models.c.human_readable_id > after).order_by(models.c.human_readable_id).limit(limit)
    if only is not None:
        query = query.where(models.c.human_readable_id.in_(only))
    return [_model(row) for row in connection.execute(query)]


def list_preparations(connection: Connection) -> Sequence[Preparation]:
    """All models that take tasks, the one that was changed last first."""
    query = _LIVE.where(models.c.enabled).order_by(models.c.updated_at.desc(), models.c.id.desc())
    return [_preparation(_model(row)) for row in connection.execute(query)]


def find_asked(connection: Connection, model_id: int, kind: SlotKind) -> Requirement:
    """What a model, by its number, asks of the slot of ``kind`` for which a task of it was queued."""
    query = select(models.c.limits, models.c.gpu_memory_bytes, models.c.node_labels).where(
        models.c.id == model_id
    )
    row = connection.execute(query).one()
    return requirement_of(kind, row.limits, row.gpu_memory_bytes, row.node_labels)


def find_content(
    connection: Connection, sha256: str, allowed: Collection[str] | None
) -> StoredContent | None:
    """Static content with this hash, of an enabled model at its newest, among ``allowed`` (null: all)."""
    query = _LIVE.where(models.c.enabled, model_versions.c.content_sha256 == sha256)
    if allowed is not None:
        query = query.where(models.c.human_readable_id.in_(list(allowed)))
    row = connection.execute(query.limit(1)).first()
    return None if row is None else _model(row).content


def add_model(
    connection: Connection, settings: Mapping[str, Any], container_tag: str, content: StoredContent | None
) -> None:
    """Register a model as version 1; raises ``ModelExistsError``."""
    now = current_ms(connection)
    values = dict(settings, uid=secrets.token_hex(16), version=1, created_at=now, updated_at=now)
    try:
        with connection.begin_nested():
            model_id = connection.execute(insert(models).values(values).returning(models.c.id)).scalar_one()
    except IntegrityError as error:
        raise ModelExistsError from error
    _add_version(connection, model_id, 1, container_tag, content)


def change_model(
    connection: Connection,
    model: Model,
    settings: Mapping[str, Any],
    *,
    container_tag: str | None,
    content: StoredContent | None,
) -> None:
    """Change a model's settings; a given image or content makes a new version.

    Naming the present image again is a new version too: that is how a rebuilt image is taken up.
    """
    new_version = container_tag is not None or content is not None
    version = model.version + 1 if new_version else model.version
    values = dict(settings, version=version, updated_at=now_ms())
    connection.execute(update(models).where(models.c.id == model.id).values(values))
    if new_version:
        tag = container_tag or model.container_tag
        _add_version(connection, model.id, version, tag, content or model.content)


def delete_model(connection: Connection, model: Model) -> list[str]:
    """Forget a model; returns the keys of its contents. Raises ``ModelInUseError``."""
    unfinished = exists().where(
        tasks.c.model_id == model.id, tasks.c.state.in_([TaskState.QUEUED, *LEASED_STATES])
    )
    if connection.execute(select(unfinished)).scalar():
        raise ModelInUseError
    connection.execute(update(models).where(models.c.id == model.id).values(deleted_at=now_ms()))
    keys = select(model_versions.c.content_key).where(
        model_versions.c.model_id == model.id, model_versions.c.content_key.is_not(None)
    )
    return list(connection.execute(keys.distinct()).scalars())


def pin_image(connection: Connection, version_id: int, image: ResolvedImage) -> None:
    """Remember what a version's tag turned out to be, the first time that somebody knows."""
    connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.image_id.is_(None))
        .values(image_id=image.image_id, image_digest=image.digest)
    )


def _add_version(
    connection: Connection, model_id: int, number: int, container_tag: str, content: StoredContent | None
) -> None:
    connection.execute(
        insert(model_versions).values(
            model_id=model_id,
            number=number,
            container_tag=container_tag,
            content_key=content.key if content else None,
            content_size=content.facts.size_bytes if content else None,
            content_sha256=content.facts.sha256 if content else None,
            created_at=now_ms(),
        )
    )


def _preparation(model: Model) -> Preparation:
    image = ImageSpec(
        tag=model.container_tag,
        image_id=model.image_id,
        digest=model.image_digest,
        pull_policy=model.pull_policy,
    )
    content = model.content.facts if model.content else None
    return Preparation(
        asked=model.asked, wanted=Wanted(model=model.human_readable_id, image=image, content=content)
    )


def _model(row: Row[Any]) -> Model:
    values = dict(row._mapping)
    key, size, sha256 = (values.pop(name) for name in ("content_key", "content_size", "content_sha256"))
    del values["deleted_at"]
    content = StoredContent(key=key, facts=BlobFacts(size_bytes=size, sha256=sha256)) if key else None
    values["pull_policy"] = PullPolicy(values["pull_policy"])
    values["profile"] = SandboxProfile(values["profile"])
    return Model(**values, content=content)
