import io

import pytest

from tests.integration.private_api.callers import problem, zip_of


def with_content(name="weighty", body=None, **fields):
    body = zip_of(weights="1") if body is None else body
    return {
        "human_readable_id": name,
        "container_tag": "echo:1",
        "zip_file": (io.BytesIO(body), "model.zip"),
        **fields,
    }


def test_a_model_is_registered_shown_and_listed(api):
    model = api.register("b", description="Says it again.", memory_bytes=64 * 2**20, cpus=0.5)
    assert (model["version"], model["enabled"], model["content"]) == (1, True, None)
    assert (model["limits"]["memory_bytes"], model["limits"]["cpus"]) == (64 * 2**20, 0.5)
    assert model["sandbox"] == {"profile": "strict", "network": False, "tmp_exec": False}
    api.register("a")
    assert {**api.call("GET", "/v1/models/b").json, "warnings": []} == model
    first = api.call("GET", "/v1/models?limit=1").json
    assert [item["human_readable_id"] for item in first["items"]] == ["a"]
    second = api.call("GET", f"/v1/models?limit=1&cursor={first['next_cursor']}").json
    assert ([item["human_readable_id"] for item in second["items"]], second["next_cursor"]) == (["b"], None)


def test_static_content_comes_as_a_form_and_reaches_the_worker(api):
    body = zip_of(weights="12345")
    model = api.call("POST", "/v1/models", data=with_content(body=body))
    assert model.status_code == 201
    assert model.json["content"]["size_bytes"] == len(body)
    api.submit("weighty")
    lease = api.claim()
    assert lease["content"] == model.json["content"]
    assert api.about(lease, "content", "GET").data == body


def test_a_model_without_content_has_none_to_fetch(api):
    api.register()
    api.submit()
    problem(api.about(api.claim(), "content", "GET"), "not_found", 404)


def test_parameters_in_the_query_are_enough(api):
    answer = api.call("POST", "/v1/models?human_readable_id=q&container_tag=q:1&use_gpu=True&description=")
    assert (answer.status_code, answer.json["use_gpu"]) == (201, True)


def test_an_id_is_taken_once_and_free_again_after_deletion(api):
    api.register()
    again = {"human_readable_id": "echo", "container_tag": "other:1"}
    problem(api.call("POST", "/v1/models", json=again), "model_exists", 409)
    assert api.call("DELETE", "/v1/models/echo").status_code == 204
    problem(api.call("GET", "/v1/models/echo"), "model_not_found", 404)
    assert api.call("POST", "/v1/models", json=again).status_code == 201


def test_a_new_image_or_content_is_a_new_version_and_a_task_keeps_the_one_it_was_sent_for(api):
    api.register()
    task = api.submit().json
    assert api.call("PATCH", "/v1/models/echo", json={"description": "Better."}).json["version"] == 1
    changed = api.call("PATCH", "/v1/models/echo", json={"container_tag": "echo:2"}).json
    assert (changed["version"], changed["image_id"]) == (2, None)
    content = api.call("PATCH", "/v1/models/echo", data={"zip_file": (io.BytesIO(zip_of(w="1")), "m.zip")})
    assert (content.json["version"], content.json["container_tag"]) == (3, "echo:2")
    lease = api.claim()
    assert (lease["task_id"], lease["model_version"], lease["image"]["tag"]) == (task["id"], 1, "echo:1")
    assert api.submit().json["model_version"] == 3


def test_a_patch_changes_only_what_it_names(api):
    before = api.register(memory_bytes=64 * 2**20)
    after = api.call("PATCH", "/v1/models/echo", json={"pids": 7}).json
    assert after["limits"] == {**before["limits"], "pids": 7}
    assert {**after, "limits": 0, "updated_at": 0} == {**before, "limits": 0, "updated_at": 0}


def test_a_disabled_model_takes_no_tasks(api):
    api.register()
    api.call("PATCH", "/v1/models/echo", json={"enabled": False})
    problem(api.submit(), "model_disabled", 409)
    assert api.blobs() == []


def test_a_model_with_unfinished_tasks_cannot_be_deleted(api):
    api.call("POST", "/v1/models", data=with_content())
    api.submit("weighty")
    problem(api.call("DELETE", "/v1/models/weighty"), "model_in_use", 409)
    api.finish(api.claim())
    assert api.call("DELETE", "/v1/models/weighty").status_code == 204
    assert not [key for key in api.blobs() if key.startswith("contents/")]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"human_readable_id": "a b"}, "human_readable_id"),
        ({"human_readable_id": ".."}, "human_readable_id"),
        ({"human_readable_id": "x" * 300}, "human_readable_id"),
        ({"container_tag": "not an image"}, "container_tag"),
        ({"container_tag": "x:1\nLABEL"}, "container_tag"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"memory_bytes": 2**63}, "memory_bytes"),
        ({"cpus": "many"}, "cpus"),
        ({"pids": 0}, "pids"),
        ({"input_mountpoint": "input"}, "input_mountpoint"),
        ({"input_mountpoint": "/"}, "input_mountpoint"),
        ({"input_mountpoint": "/a/../etc"}, "input_mountpoint"),
        ({"input_mountpoint": "/proc/x"}, "input_mountpoint"),
        ({"input_mountpoint": "/data", "output_mountpoint": "/data/out"}, "mount points"),
        ({"profile": "privileged"}, "profile"),
        ({"environment": {"LD_PRELOAD": "x"}}, "environment"),
        ({"description": "a\x00b"}, "description"),
    ],
)
def test_a_wrong_registration_is_refused_with_the_name_of_the_field(api, fields, named):
    answer = api.call("POST", "/v1/models", json={"human_readable_id": "m", "container_tag": "m:1", **fields})
    assert named in problem(answer, "invalid_field", 422)["detail"]
    assert api.call("GET", "/v1/models").json["items"] == []


def test_spaces_and_colons_only_where_the_1x_interface_asks_for_them(api):
    fields = {"human_readable_id": "Some Model: 2", "container_tag": "m:1"}
    problem(api.call("POST", "/v1/models", json=fields), "invalid_field", 422)
    assert api.call("POST", "/v1/models", json={**fields, "classic_id": True}).status_code == 201
    assert api.call("GET", "/v1/models/Some%20Model:%202").status_code == 200
    assert (
        api.call("POST", "/v1/tasks?model_human_readable_id=Some+Model:+2", data=zip_of(a="1")).status_code
        == 202
    )


def test_bad_static_content_registers_nothing(api):
    problem(api.call("POST", "/v1/models", data=with_content(body=b"no zip")), "input_invalid", 422)
    problem(api.call("GET", "/v1/models/weighty"), "model_not_found", 404)
    assert api.blobs() == []


def test_a_second_file_in_the_form_is_refused(api):
    data = with_content(other=(io.BytesIO(b"x"), "x.bin"))
    assert "zip_file" in problem(api.call("POST", "/v1/models", data=data), "invalid_field", 422)["detail"]
    assert api.blobs() == []
