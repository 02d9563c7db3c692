"""Registering, changing and removing models: versions, static content, and who still runs what."""

from __future__ import annotations

from collections.abc import Callable

from tests.bad_zips import BAD_ZIPS
from tests.models.images import engine, image_of
from tests.rig.api import Api, problem
from tests.rig.zips import zip_of

Model = Callable[[str], str]


def test_model_tells_all_about_itself(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("echo", description="copies", time_seconds=12.5)
    # When
    model = user.get(f"/v1/models/{name}").json()
    # Then
    assert model["human_readable_id"] == name
    assert (model["description"], model["version"], model["enabled"]) == ("copies", 1, True)
    assert model["limits"]["time_seconds"] == 12.5
    assert model["container_tag"] == image_of("echo")
    assert name in {listed["human_readable_id"] for listed in every_model(user)}


def every_model(api: Api) -> list[dict[str, str]]:
    models: list[dict[str, str]] = []
    cursor = None
    while cursor is not None or not models:
        page = api.get("/v1/models", params={"limit": 7, **({"cursor": cursor} if cursor else {})}).json()
        models += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return models


def test_image_is_pinned_by_the_first_run(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("echo")
    assert user.get(f"/v1/models/{name}").json()["image_id"] is None
    # When
    task = user.run(name)
    # Then
    assert user.get(f"/v1/models/{name}").json()["image_id"] == engine().images.get(image_of("echo")).id
    assert task["model_version"] == 1


def test_id_is_taken_once(admin: Api, model: Model) -> None:
    answer = admin.post(
        "/v1/models", json={"human_readable_id": model("echo"), "container_tag": image_of("echo")}
    )
    problem(answer, 409, "model_exists")


def test_new_image_is_a_new_version(admin: Api, user: Api) -> None:
    # Given a model that has run
    name = admin.register("echo")
    first = user.run(name)
    # When its image is changed
    answer = admin.call("PATCH", f"/v1/models/{name}", json={"container_tag": image_of("exits-3")})
    # Then what is sent from now on runs that, and says so
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    second = user.run(name)
    assert (second["model_version"], second["exit_code"]) == (2, 3)
    assert user.task(first["id"])["model_version"] == 1


def test_change_of_a_setting_is_no_new_version(admin: Api) -> None:
    # Given
    name = admin.register("echo")
    # When
    answer = admin.call("PATCH", f"/v1/models/{name}", json={"description": "new", "time_seconds": 5})
    # Then
    model = answer.json()
    assert (model["version"], model["description"], model["limits"]["time_seconds"]) == (1, "new", 5)


def test_static_content_is_read_from_model(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("uses-model", content={"w/a.bin": b"weights 1", "w/": b""})
    assert admin.get(f"/v1/models/{name}").json()["content"]["size_bytes"] > 0
    # When it runs twice: the second time the content lies there already
    outputs = [user.output(user.run(name)) for _ in range(2)]
    # Then
    assert outputs == [{"w/": b"", "w/a.bin": b"weights 1"}] * 2


def test_new_content_is_a_new_version(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("uses-model", content={"a": b"old"})
    assert user.output(user.run(name)) == {"a": b"old"}
    # When
    answer = admin.call("PATCH", f"/v1/models/{name}", files={"zip_file": ("m.zip", zip_of({"a": b"new"}))})
    # Then
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert user.output(user.run(name)) == {"a": b"new"}


def test_bad_content_is_refused(admin: Api) -> None:
    # Given
    build, words = BAD_ZIPS["symlink"]
    # When
    answer = admin.post(
        "/v1/models",
        data={"human_readable_id": "bad-content", "container_tag": image_of("echo")},
        files={"zip_file": ("m.zip", build())},
    )
    # Then
    assert words in problem(answer, 422, "input_invalid")["detail"]
    problem(admin.get("/v1/models/bad-content"), 404, "model_not_found")


def test_disabled_model_takes_no_tasks_until_enabled(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("echo")
    path, send = (
        f"/v1/models/{name}",
        {"params": {"model_human_readable_id": name}, "data": zip_of({"a": b"b"})},
    )
    # When / Then
    assert admin.call("PATCH", path, json={"enabled": False}).json()["enabled"] is False
    problem(user.post("/v1/tasks", **send), 409, "model_disabled")
    assert admin.call("PATCH", path, json={"enabled": True}).json()["enabled"] is True
    assert user.post("/v1/tasks", **send).status_code == 202


def test_model_with_tasks_under_way_is_not_removed(admin: Api, user: Api) -> None:
    # Given
    name = admin.register("sleeps-for-ever")
    task = user.submit(name)
    # When / Then
    problem(admin.call("DELETE", f"/v1/models/{name}"), 409, "model_in_use")
    user.post(task["urls"]["cancel"])
    user.ended(task)
    assert admin.call("DELETE", f"/v1/models/{name}").status_code == 204
    problem(admin.get(f"/v1/models/{name}"), 404, "model_not_found")
    # And what its tasks were stays to be read
    assert user.task(task["id"])["state"] == "canceled"


def test_same_key_registers_once(admin: Api) -> None:
    # Given
    fields = {"human_readable_id": "registered-once", "container_tag": image_of("echo")}
    key = {"Idempotency-Key": "model-once"}
    # When
    answers = [admin.post("/v1/models", json=fields, headers=key) for _ in range(2)]
    other = admin.post("/v1/models", json={**fields, "description": "other"}, headers=key)
    # Then
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    problem(other, 409, "idempotency_conflict")
