"""Who may do what: two users see nothing of each other, roles keep to their routes, keys end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.models.images import image_of
from tests.rig.api import Api, Task, problem
from tests.rig.server import Server

Model = Callable[[str], str]

TASK_ROUTES = [
    ("GET", ""),
    ("GET", "/input"),
    ("GET", "/output"),
    ("GET", "/logs"),
    ("POST", "/cancel"),
    ("POST", "/retry"),
    ("DELETE", ""),
]


@pytest.fixture(scope="module")
def task(user: Api, model: Model) -> Task:
    return user.run(model("echo"))


@pytest.mark.parametrize(("method", "route"), TASK_ROUTES)
def test_task_of_somebody_else_does_not_exist(
    user: Api, stranger: Api, task: Task, method: str, route: str
) -> None:
    # When
    answer = stranger.call(method, f"/v1/tasks/{task['id']}{route}")
    # Then it is answered as an id that nobody has
    theirs = problem(answer, 404, "task_not_found")
    nobodys = problem(stranger.call(method, f"/v1/tasks/{'0' * 32}{route}"), 404, "task_not_found")
    assert theirs["detail"] == nobodys["detail"]
    # And the task is as it was
    assert user.task(task["id"]) == task


def test_lists_hold_ones_own_tasks_and_an_admins_all(
    user: Api, stranger: Api, admin: Api, task: Task, model: Model
) -> None:
    # Given
    other = stranger.run(model("echo"))

    # When
    def listed(caller: Api) -> set[str]:
        return {item["id"] for item in caller.get("/v1/tasks", params={"limit": 1000}).json()["items"]}

    # Then
    assert task["id"] in listed(user)
    assert other["id"] not in listed(user)
    assert other["id"] in listed(stranger)
    assert task["id"] not in listed(stranger)
    assert {task["id"], other["id"]} <= listed(admin)


ADMIN_ROUTES = [
    ("POST", "/v1/models"),
    ("PATCH", "/v1/models/echo-1"),
    ("DELETE", "/v1/models/echo-1"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("DELETE", "/v1/keys/1"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
@pytest.mark.parametrize("role", ["user", "worker"])
def test_admins_routes_are_closed_to_others(server: Server, role: str, method: str, path: str) -> None:
    # Given
    caller = Api(server.url, server.key("worker")) if role == "worker" else server.caller("user")
    # When / Then
    body = {"human_readable_id": "mine", "container_tag": image_of("echo")}
    problem(caller.call(method, path, json=body), 403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/tasks"), ("POST", "/v1/tasks?model_human_readable_id=x")]
)
def test_users_routes_are_closed_to_workers(server: Server, method: str, path: str) -> None:
    worker = Api(server.url, server.key("worker"))
    problem(worker.call(method, path, data=b"x"), 403, "forbidden")


def test_workers_routes_are_closed_to_the_world(server: Server, admin: Api) -> None:
    for caller in (admin, server.caller("user")):
        answer = caller.post(
            "/v1/leases", json={"node": "x", "slot": "y", "kinds": ["cpu"], "wait_seconds": 0}
        )
        assert answer.status_code in {403, 404}


PROTECTED = [
    ("GET", "/v1/tasks"),
    ("POST", "/v1/tasks?model_human_readable_id=x"),
    ("GET", f"/v1/tasks/{'0' * 32}"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models"),
    ("GET", "/v1/keys"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize("key", [None, "", "wrong", "ä", "x" * 5000])
def test_without_a_key_nothing_is_said(server: Server, method: str, path: str, key: str | None) -> None:
    # When
    headers = {} if key is None else {"Authorization": f"Bearer {key}".encode()}
    answer = Api(server.url, None).call(method, path, headers=headers)
    # Then
    problem(answer, 401, "unauthenticated")
    assert "Basic" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("name", ["key", "api_key", "access_token", "X-API-Key"])
def test_key_in_the_query_is_no_key(server: Server, user: Api, name: str) -> None:
    answer = Api(server.url, None).get("/v1/tasks", params={name: user.key})
    document = problem(answer, 400, "bad_request")
    assert "must not stand in an address" in document["detail"]
    assert str(user.key) not in answer.text


def test_header_with_underscores_is_no_key(server: Server, user: Api) -> None:
    answer = Api(server.url, None).get("/v1/tasks", headers={"X_API_Key": str(user.key)})
    problem(answer, 401, "unauthenticated")


def test_revoked_key_ends_at_once(server: Server, admin: Api) -> None:
    # Given
    made = admin.post("/v1/keys", json={"name": "short", "role": "user"}).json()
    caller = Api(server.url, made["key"])
    assert caller.get("/v1/tasks").status_code == 200
    # When
    assert admin.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    # Then
    problem(caller.get("/v1/tasks"), 401, "unauthenticated")


def test_key_past_its_time_is_no_key(server: Server, admin: Api) -> None:
    # Given
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    answer = admin.post("/v1/keys", json={"name": "late", "role": "user", "expires_at": past})
    # Then it is refused, or never works
    if answer.status_code == 201:
        problem(Api(server.url, answer.json()["key"]).get("/v1/tasks"), 401, "unauthenticated")
    else:
        problem(answer, 422, "invalid_field")


def test_key_is_shown_once(server: Server, admin: Api) -> None:
    # Given
    made = admin.post("/v1/keys", json={"name": "seen once", "role": "user"}).json()
    # When
    listed = admin.get("/v1/keys", params={"limit": 1000})
    # Then
    assert made["id"] in {key["id"] for key in listed.json()["items"]}
    assert made["key"] not in listed.text
    # And nowhere on the disk
    held = server.database_bytes()
    assert made["id"].encode() in held
    assert made["key"].encode() not in held
