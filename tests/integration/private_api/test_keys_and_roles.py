import base64
import stat

import pytest
from sqlalchemy import delete, update

from private_api.bootstrap import ensure_first_keys
from private_api.store.tables import api_keys, idempotency, now_ms
from tests.integration.private_api.callers import problem, zip_of


def test_the_first_keys_are_private_files_and_never_overwritten(api):
    for name in ("admin.key", "worker.key"):
        file = api.directory / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        before = file.read_text()
        ensure_first_keys(api.services.database, api.directory)
        assert file.read_text() == before


def test_a_key_file_is_known_to_an_empty_database_again(api):
    (api.directory / "admin.key").write_text("isk_chosen-by-the-operator\n")
    ensure_first_keys(api.services.database, api.directory)
    assert api.call("GET", "/v1/keys", key="isk_chosen-by-the-operator").status_code == 200


def test_a_key_is_shown_once_and_kept_as_a_hash(api):
    made = api.call("POST", "/v1/keys", json={"name": "ward 7", "role": "user"})
    assert made.headers["Cache-Control"] == "no-store"
    secret = made.json["key"]
    assert secret not in api.call("GET", "/v1/keys").text
    database = b"".join(file.read_bytes() for file in api.directory.glob("db.sqlite*"))
    assert secret.encode() not in database


@pytest.mark.parametrize("way", ["bearer", "x-api-key", "basic", "basic-user"])
def test_a_key_may_come_in_each_of_the_usual_ways(api, way):
    headers = {
        "bearer": {"Authorization": f"Bearer {api.admin}"},
        "x-api-key": {"X-API-Key": api.admin},
        "basic": {"Authorization": "Basic " + base64.b64encode(f"me:{api.admin}".encode()).decode()},
        "basic-user": {"Authorization": "Basic " + base64.b64encode(f"{api.admin}:".encode()).decode()},
    }[way]
    assert api.app.test_client().get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic ###"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
    ],
)
def test_without_a_valid_key_nothing_is_told(api, headers):
    answer = api.app.test_client().get("/v1/models", headers=headers)
    problem(answer, "unauthenticated", 401)
    assert "Basic" in answer.headers["WWW-Authenticate"]


def test_a_key_in_the_query_is_no_key(api):
    problem(api.app.test_client().get(f"/v1/models?key={api.admin}"), "unauthenticated", 401)


def test_a_revoked_or_expired_key_is_refused(api):
    made = api.call("POST", "/v1/keys", json={"name": "x", "role": "user"}).json
    assert api.call("GET", "/v1/models", key=made["key"]).status_code == 200
    assert api.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    problem(api.call("GET", "/v1/models", key=made["key"]), "unauthenticated", 401)
    problem(api.call("DELETE", f"/v1/keys/{made['id']}"), "key_not_found", 404)
    later = {"name": "y", "role": "user", "expires_at": "2999-01-01T00:00:00Z"}
    expired = api.call("POST", "/v1/keys", json=later).json
    assert api.call("GET", "/v1/models", key=expired["key"]).status_code == 200
    with api.services.database.write() as connection:
        connection.execute(update(api_keys).values(expires_at=now_ms() - 1).where(api_keys.c.name == "y"))
    problem(api.call("GET", "/v1/models", key=expired["key"]), "unauthenticated", 401)


def test_the_last_use_is_noted(api):
    user = api.key_of("user", "noted")
    api.call("GET", "/v1/models", key=user)
    keys = {key["name"]: key for key in api.call("GET", "/v1/keys").json["items"]}
    assert keys["noted"]["last_used_at"] is not None


@pytest.mark.parametrize("role", ["admin", "user", "worker"])
def test_every_key_may_see_itself_and_nothing_secret(api, role):
    made = api.call("POST", "/v1/keys", json={"name": "ward 7", "role": role}).json
    seen = api.call("GET", "/v1/keys/self", key=made["key"])
    assert seen.status_code == 200
    assert (seen.json["id"], seen.json["name"], seen.json["role"]) == (made["id"], "ward 7", role)
    assert seen.json["expires_at"] is None
    assert made["key"] not in seen.text
    assert "key" not in seen.json
    assert api.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    problem(api.call("GET", "/v1/keys/self", key=made["key"]), "unauthenticated", 401)


def test_an_admin_key_cannot_revoke_itself(api):
    own = next(key for key in api.call("GET", "/v1/keys").json["items"] if key["role"] == "admin")
    problem(api.call("DELETE", f"/v1/keys/{own['id']}"), "forbidden", 403)


ADMIN_ROUTES = [
    ("POST", "/v1/keys"), ("GET", "/v1/keys"), ("DELETE", "/v1/keys/x"),
    ("POST", "/v1/models"), ("PATCH", "/v1/models/echo"), ("DELETE", "/v1/models/echo"),
]  # fmt: skip
WORKER_ROUTES = [
    ("POST", "/v1/leases"), ("POST", "/v1/leases/withdraw"),
    ("POST", "/v1/leases/x/heartbeat"), ("POST", "/v1/leases/x/logs"),
    ("GET", "/v1/leases/x/input"), ("GET", "/v1/leases/x/content"), ("PUT", "/v1/leases/x/output"),
    ("POST", "/v1/leases/x/complete"), ("POST", "/v1/leases/x/fail"),
]  # fmt: skip
PEOPLES_ROUTES = [
    ("POST", "/v1/tasks"),
    ("GET", "/v1/tasks"),
    ("GET", "/v1/tasks/x"),
    ("POST", "/v1/tasks/x/cancel"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES + WORKER_ROUTES)
def test_a_user_may_not(api, method, path):
    api.register()
    problem(api.call(method, path, key=api.key_of("user")), "forbidden", 403)


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES + PEOPLES_ROUTES)
def test_a_worker_may_not(api, method, path):
    problem(api.call(method, path, key=api.worker), "forbidden", 403)


@pytest.mark.parametrize(("method", "path"), WORKER_ROUTES)
def test_an_admin_is_no_worker(api, method, path):
    problem(api.call(method, path), "forbidden", 403)


def test_the_same_idempotency_key_creates_one_task(api):
    api.register()
    headers = {"Idempotency-Key": "once"}
    first, second = api.submit(headers=headers), api.submit(headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json == second.json
    assert len(api.call("GET", "/v1/tasks").json["items"]) == 1
    assert len(api.blobs()) == 1
    problem(api.submit(body=zip_of(other="1"), headers=headers), "idempotency_conflict", 409)
    assert len(api.blobs()) == 1


def test_an_idempotency_key_belongs_to_its_sender(api):
    api.register()
    headers = {"Idempotency-Key": "once"}
    ids = {api.submit(headers=headers, key=key).json["id"] for key in (api.admin, api.key_of("user"))}
    assert len(ids) == 2


def test_a_repeated_key_request_gives_the_same_key_again_without_having_kept_it(api):
    arguments = {"json": {"name": "k", "role": "user"}, "headers": {"Idempotency-Key": "k1"}}
    first, second = (api.call("POST", "/v1/keys", **arguments).json for _ in range(2))
    assert first == second
    assert api.call("GET", "/v1/models", key=first["key"]).status_code == 200


def test_a_repeated_registration_answers_as_the_first(api):
    arguments = {
        "json": {"human_readable_id": "m", "container_tag": "m:1"},
        "headers": {"Idempotency-Key": "m1"},
    }
    first, second = (api.call("POST", "/v1/models", **arguments) for _ in range(2))
    assert (first.status_code, first.json) == (second.status_code, second.json)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_unusable_idempotency_key_is_refused(api, key):
    api.register()
    problem(api.submit(headers={"Idempotency-Key": key}), "invalid_field", 422)


def test_a_key_cannot_be_born_dead(api):
    past = {"name": "y", "role": "user", "expires_at": "2020-01-01T00:00:00Z"}
    assert "expires_at" in problem(api.call("POST", "/v1/keys", json=past), "invalid_field", 422)["detail"]


def test_a_key_request_repeated_after_its_answer_was_forgotten_is_a_conflict(api):
    arguments = {"json": {"name": "k", "role": "user"}, "headers": {"Idempotency-Key": "k1"}}
    assert api.call("POST", "/v1/keys", **arguments).status_code == 201
    with api.services.database.write() as connection:
        connection.execute(delete(idempotency))
    problem(api.call("POST", "/v1/keys", **arguments), "idempotency_conflict", 409)


def test_a_repetition_is_answered_as_the_first_even_when_the_model_is_disabled_by_now(api):
    api.register()
    first = api.submit(headers={"Idempotency-Key": "once"})
    api.call("PATCH", "/v1/models/echo", json={"enabled": False})
    again = api.submit(headers={"Idempotency-Key": "once"})
    assert (again.status_code, again.json) == (202, first.json)
    problem(api.submit(headers={"Idempotency-Key": "another"}), "model_disabled", 409)


def test_credentials_that_are_no_base64_are_no_credentials(api):
    answer = api.app.test_client().get("/v1/models", headers={"Authorization": "Basic \xff"})
    problem(answer, "unauthenticated", 401)


def test_drafts_of_first_keys_that_a_kill_left_are_no_obstacle(api):
    (api.directory / "admin.key").rename(api.directory / ".admin.key.draft")
    ensure_first_keys(api.services.database, api.directory)
    assert (api.directory / "admin.key").read_text() != api.admin
