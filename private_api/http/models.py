"""The doors to models: register one, look at it, change it, delete it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Connection

from contracts.problems import ProblemCode
from private_api.blobs.store import discard
from private_api.decisions.placement import NodeOffer, waiting_for
from private_api.http.authentication import PEOPLE, Caller, allow, caller
from private_api.http.documents import model_document
from private_api.http.fields import json_object, query_fields, read_fields, received_fields
from private_api.http.repetition import create_once
from private_api.http.services import Services, services
from private_api.http.shapes import (
    DEFAULT_LIMITS,
    DEFAULT_SETTINGS,
    ModelRegistration,
    ModelSettings,
    PageQuery,
)
from private_api.http.uploads import StoredZip, receive
from private_api.store.idempotency import fingerprint_of
from private_api.store.keys import Role
from private_api.store.models import (
    Model,
    ModelExistsError,
    ModelInUseError,
    StoredContent,
    add_model,
    change_model,
    delete_model,
    find_model,
    list_models,
)
from private_api.store.workers import has_unreported_slot
from serving.problems import ProblemError

blueprint = Blueprint("models", __name__)

_GPU = ("use_gpu", "gpu_memory_bytes")
_MOUNTPOINTS = ("input_mountpoint", "output_mountpoint", "model_mountpoint")


@blueprint.get("/v1/models")
@allow(*Role)
def listing() -> Response:
    """All models, in the order of their ids; for a worker key that is bound to some, these."""
    query, bound_to = query_fields(PageQuery), caller().key.models
    with services().database.read() as connection:
        found = list_models(connection, after=query.cursor, limit=query.limit + 1, only=bound_to)
    page = found[: query.limit]
    next_cursor = page[-1].human_readable_id if len(found) > query.limit else None
    return jsonify({"items": [model_document(model) for model in page], "next_cursor": next_cursor})


@blueprint.get("/v1/models/<human_readable_id>")
@allow(*Role)
def show(human_readable_id: str) -> Response:
    """One model."""
    bound_to = caller().key.models
    if bound_to is not None and human_readable_id not in bound_to:
        raise _unknown(human_readable_id)
    return jsonify(model_document(_existing(services(), human_readable_id)))


@blueprint.post("/v1/models")
@allow(*PEOPLE)
def register() -> Response:
    """Register a model: as JSON, or with its static content as a form."""
    here, owner = services(), caller()
    _refuse_unless_registrar(here, owner)
    if request.mimetype == "application/json":
        return _register(here, owner, read_fields(ModelRegistration, json_object()), None)
    with receive(here, "contents", here.settings.max_content_bytes) as received:
        fields = received_fields(ModelRegistration, received.fields)
        return _register(here, owner, fields, received.zip)


@blueprint.patch("/v1/models/<human_readable_id>")
@allow(*PEOPLE)
def change(human_readable_id: str) -> Response:
    """Change a model; a new image or new static content makes a new version."""
    here = services()
    _refuse_unless_registrar(here, caller())
    _existing(here, human_readable_id)
    if request.mimetype == "application/json":
        return _change(here, human_readable_id, read_fields(ModelSettings, json_object()), None)
    with receive(here, "contents", here.settings.max_content_bytes) as received:
        fields = received_fields(ModelSettings, received.fields)
        return _change(here, human_readable_id, fields, received.zip)


@blueprint.delete("/v1/models/<human_readable_id>")
@allow(*PEOPLE)
def remove(human_readable_id: str) -> Response:
    """Delete a model and its static content; its ended tasks keep their outputs."""
    here = services()
    _refuse_unless_registrar(here, caller())
    try:
        with here.database.write() as connection:
            model = find_model(connection, human_readable_id, lock="exclusive")
            if model is None:
                raise _unknown(human_readable_id)
            garbage = delete_model(connection, model)
    except ModelInUseError as error:
        raise ProblemError(
            ProblemCode.MODEL_IN_USE,
            "Tasks of this model are queued or running; disable it, and delete it when they have ended.",
            retry_after=5,
        ) from error
    here.fleet.forget_models()
    discard(here.blobs, garbage)
    return Response(status=204)


def _register(here: Services, owner: Caller, fields: ModelRegistration, stored: StoredZip | None) -> Response:
    columns = {**DEFAULT_SETTINGS, **fields.columns(), "human_readable_id": fields.human_readable_id}
    columns["limits"] = {**DEFAULT_LIMITS, **fields.limits()}
    _refuse_overlapping_mounts(columns)
    _refuse_gpu_memory_without_gpu(columns)
    nodes = here.fleet.offers()

    def create(connection: Connection) -> tuple[str, dict[str, Any]]:
        try:
            add_model(connection, columns, fields.container_tag, _content(stored))
        except ModelExistsError as error:
            raise ProblemError(
                ProblemCode.MODEL_EXISTS,
                f"A model {fields.human_readable_id!r} exists already; change it, or choose another id.",
            ) from error
        model = find_model(connection, fields.human_readable_id)
        assert model is not None  # noqa: S101 - Added above, in this transaction.
        return model.human_readable_id, _saved(connection, model, nodes)

    content_sha256 = stored.facts.sha256 if stored else None
    fingerprint = fingerprint_of("model", fields.model_dump(mode="json"), content_sha256)
    answer = create_once(here.database, owner, fingerprint, create)
    if stored is not None and not answer.is_first:
        discard(here.blobs, [stored.key])
    here.fleet.forget_models()
    response = jsonify(answer.document)
    response.status_code = 201
    response.headers["Location"] = f"/v1/models/{answer.created_id}"
    return response


def _change(
    here: Services, human_readable_id: str, fields: ModelSettings, stored: StoredZip | None
) -> Response:
    nodes = here.fleet.offers()
    with here.database.write() as connection:
        model = find_model(connection, human_readable_id, lock="exclusive")
        if model is None:
            raise _unknown(human_readable_id)
        columns = {**fields.columns(), "limits": {**model.limits, **fields.limits()}}
        merged = {name: columns.get(name, getattr(model, name)) for name in (*_MOUNTPOINTS, *_GPU)}
        _refuse_overlapping_mounts(merged)
        _refuse_gpu_memory_without_gpu(merged)
        change_model(connection, model, columns, container_tag=fields.container_tag, content=_content(stored))
        changed = find_model(connection, human_readable_id)
        assert changed is not None  # noqa: S101 - Found and changed above, in one transaction.
        document = _saved(connection, changed, nodes)
    here.fleet.forget_models()
    return jsonify(document)


def _saved(connection: Connection, model: Model, nodes: Sequence[NodeOffer]) -> dict[str, Any]:
    """The model, with what its registrar should know: that no node could run it, say."""
    missing = None
    # Where none is connected yet, nothing can be said; nor of what a node has that never reported.
    if any(node.is_present for node in nodes) and not has_unreported_slot(connection, model.kind):
        missing = waiting_for(model.asked, nodes)
    warnings = [] if missing is None else [f"No node could run this model now. It needs {missing}."]
    return {**model_document(model), "warnings": warnings}


def _existing(here: Services, human_readable_id: str) -> Model:
    with here.database.read() as connection:
        model = find_model(connection, human_readable_id)
    if model is None:
        raise _unknown(human_readable_id)
    return model


def _unknown(human_readable_id: str) -> ProblemError:
    return ProblemError(ProblemCode.MODEL_NOT_FOUND, f"There is no model {human_readable_id[:128]!r}.")


def _refuse_unless_registrar(here: Services, owner: Caller) -> None:
    if not owner.is_admin and not here.settings.users_register_models:
        raise ProblemError(ProblemCode.FORBIDDEN, "Registering and changing models needs an admin key.")


def _refuse_overlapping_mounts(columns: dict[str, Any]) -> None:
    paths = [columns[name] + "/" for name in _MOUNTPOINTS]
    for index, path in enumerate(paths):
        if any(other.startswith(path) for other in paths[:index] + paths[index + 1 :]):
            raise ProblemError(
                ProblemCode.INVALID_FIELD, "The mount points must differ, and none may lie inside another."
            )


def _refuse_gpu_memory_without_gpu(columns: dict[str, Any]) -> None:
    if columns.get("gpu_memory_bytes") and not columns["use_gpu"]:
        raise ProblemError(
            ProblemCode.INVALID_FIELD, "gpu_memory_bytes: only a model with use_gpu is given a GPU's memory."
        )


def _content(stored: StoredZip | None) -> StoredContent | None:
    return StoredContent(key=stored.key, facts=stored.facts) if stored else None
