"""The doors to keys, for admins: make one (shown once), list them, revoke one. Anybody may see their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response, jsonify
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from contracts.problems import ProblemCode
from private_api.http.authentication import allow, caller
from private_api.http.documents import key_document
from private_api.http.fields import json_object, milliseconds, query_fields, read_fields
from private_api.http.repetition import create_once, idempotency_key
from private_api.http.services import services
from private_api.http.shapes import KeyRequest, PageQuery
from private_api.store.idempotency import fingerprint_of
from private_api.store.keys import Role, add_key, derived_secret, list_keys, new_secret, revoke_key
from private_api.store.models import find_model
from serving.problems import ProblemError

blueprint = Blueprint("keys", __name__)


@blueprint.post("/v1/keys")
@allow(Role.ADMIN)
def create() -> Response:
    """Make a key; its secret is in this answer and nowhere else."""
    here, owner = services(), caller()
    fields = read_fields(KeyRequest, json_object())
    fingerprint = fingerprint_of("key", fields.model_dump(mode="json"))
    repeatable = idempotency_key()
    # The first answer must be given again without having been kept: the secret follows from the request.
    secret = derived_secret(owner.secret, repeatable, fingerprint) if repeatable else new_secret()

    def add(connection: Connection) -> tuple[str, dict[str, Any]]:
        expires_at = milliseconds(fields.expires_at)
        for model in fields.models or ():
            if find_model(connection, model) is None:
                raise ProblemError(ProblemCode.INVALID_FIELD, f"models: there is no model {model!r}.")
        key = add_key(
            connection,
            name=fields.name,
            role=fields.role,
            secret=secret,
            expires_at=expires_at,
            models=fields.models,
        )
        return key.id, key_document(key)

    if fields.expires_at is not None and fields.expires_at <= datetime.now(UTC):
        raise ProblemError(ProblemCode.INVALID_FIELD, "expires_at: must lie in the future.")
    try:
        answer = create_once(here.database, owner, fingerprint, add)
    except IntegrityError as error:
        raise ProblemError(
            ProblemCode.IDEMPOTENCY_CONFLICT,
            "This Idempotency-Key made a key long ago; use a new one to make another.",
        ) from error
    response = jsonify({**answer.document, "key": secret})
    response.status_code = 201
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/v1/keys")
@allow(Role.ADMIN)
def listing() -> Response:
    """All keys, without their secrets."""
    query = query_fields(PageQuery)
    with services().database.read() as connection:
        found = list_keys(connection, after=query.cursor, limit=query.limit + 1)
    page = found[: query.limit]
    next_cursor = page[-1].id if len(found) > query.limit else None
    return jsonify({"items": [key_document(key) for key in page], "next_cursor": next_cursor})


@blueprint.get("/v1/keys/self")
@allow(*Role)
def own() -> Response:
    """The caller's own key, without its secret: whose it is, what it may do, until when."""
    return jsonify(key_document(caller().key))


@blueprint.delete("/v1/keys/<key_id>")
@allow(Role.ADMIN)
def revoke(key_id: str) -> Response:
    """Make a key invalid at once."""
    if key_id == caller().key.id:
        raise ProblemError(ProblemCode.FORBIDDEN, "A key cannot revoke itself; use another admin key.")
    with services().database.write() as connection:
        revoked = revoke_key(connection, key_id)
    # Whoever waits with this key for a task is not to get one.
    services().lookout.recall(key_id=key_id)
    if not revoked:
        raise ProblemError(ProblemCode.KEY_NOT_FOUND, "There is no valid key with this id.")
    return Response(status=204)
