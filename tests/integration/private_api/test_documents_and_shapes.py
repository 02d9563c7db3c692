"""Every document that the private API answers has the shape that the OpenAPI document gives for it."""

import io
import re

import jsonschema
import pytest
from sqlalchemy import update

from contracts.states import TaskState
from private_api.http.openapi_answers import ANSWERS
from private_api.store.tables import now_ms, tasks
from private_api.upkeep import purge_once
from tests.integration.private_api.callers import zip_of

SHAPES = {"components": {"schemas": ANSWERS}}
TASK_STATES = {}
# The library checks times only where another one is installed; ours are always of this one form.
FORMATS = jsonschema.FormatChecker([])


@FORMATS.checks("date-time")
def is_time(value):
    return value is None or bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value))


def hold(document, shape):
    """Fail unless ``document`` is exactly what is described under the name ``shape``."""
    schema = {**SHAPES, "$ref": f"#/components/schemas/{shape}"}
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator, format_checker=FORMATS)


def state(make):
    TASK_STATES[make.__name__] = make
    return make


def claimed(api):
    """A lease on the task that has waited longest, or on a new one."""
    api.submit()
    return api.claim()


@state
def queued(api):
    return api.submit().json["id"]


@state
def starting(api):
    lease = claimed(api)
    api.beat(lease, phase="pulling")
    return lease["task_id"]


@state
def running(api):
    lease = claimed(api)
    image = {"image_id": "sha256:1", "digest": "example.org/echo@sha256:2"}
    api.beat(lease, progress={"fraction": 0.4, "message": "slice 12 of 30"}, image=image)
    return lease["task_id"]


@state
def asked_to_cancel(api):
    task = running(api)
    api.call("POST", f"/v1/tasks/{task}/cancel")
    return task


@state
def succeeded(api):
    lease = claimed(api)
    api.finish(lease)
    return lease["task_id"]


@state
def failed(api):
    lease = claimed(api)
    api.fail(lease, "exit_nonzero", exit_code=3)
    return lease["task_id"]


@state
def queued_again(api):
    lease = claimed(api)
    api.fail(lease, "engine_failed")
    return lease["task_id"]


@state
def canceled(api):
    task = queued(api)
    api.call("POST", f"/v1/tasks/{task}/cancel")
    return task


@state
def expired(api):
    task = succeeded(api)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).where(tasks.c.id == task).values(output_expires_at=now_ms() - 1))
    purge_once(api.services)
    assert api.task(task)["data_expired"]
    return task


@pytest.mark.parametrize("name", TASK_STATES)
def test_task_has_its_shape_in_every_state(api, name):
    # given
    api.register()
    task = TASK_STATES[name](api)
    # when
    document = api.task(task)
    page = api.call("GET", "/v1/tasks").json
    # then
    hold(document, "Task")
    hold(page, "TaskPage")
    assert [item["id"] for item in page["items"]] == [task]


def test_every_state_has_been_seen(api):
    # given
    api.register()
    # when
    seen = {api.task(make(api))["state"] for make in TASK_STATES.values()}
    # then
    assert seen == set(TaskState)


@pytest.mark.parametrize("kind", ["plain", "with content", "resolved", "changed"])
def test_model_has_its_shape(api, kind):
    # given
    if kind == "with content":
        form = {"human_readable_id": "echo", "container_tag": "echo:1"}
        form["zip_file"] = (io.BytesIO(zip_of(a="weights")), "model.zip")
        assert api.call("POST", "/v1/models", data=form).status_code == 201
    else:
        api.register(description="says it again", use_gpu=kind == "plain")
    if kind == "resolved":
        running(api)
    if kind == "changed":
        api.call("PATCH", "/v1/models/echo", json={"enabled": False, "cpus": 0.5, "container_tag": "echo:2"})
    # when
    document = api.call("GET", "/v1/models/echo").json
    # then
    hold(document, "Model")
    hold(api.call("GET", "/v1/models").json, "ModelPage")
    assert (document["content"] is not None) == (kind == "with content")
    assert (document["image_digest"] is not None) == (kind == "resolved")
    assert document["version"] == (2 if kind == "changed" else 1)


@pytest.mark.parametrize("role", ["admin", "user", "worker"])
@pytest.mark.parametrize("fields", [{}, {"expires_at": "2999-01-31T12:00:00Z"}])
def test_key_has_its_shape_before_and_after_it_is_revoked(api, role, fields):
    # given
    made = api.call("POST", "/v1/keys", json={"name": "ward 7", "role": role, **fields}).json
    api.call("GET", "/v1/models", key=made["key"])
    # when
    pages = [api.call("GET", "/v1/keys").json]
    api.call("DELETE", f"/v1/keys/{made['id']}")
    pages.append(api.call("GET", "/v1/keys").json)
    # then
    hold(made, "NewKey")
    for page in pages:
        hold(page, "KeyPage")
        for key in page["items"]:
            hold(key, "Key")
    revoked = [{k["id"]: k["revoked_at"] for k in page["items"]}[made["id"]] for page in pages]
    assert revoked[0] is None
    assert revoked[1] is not None


@pytest.mark.parametrize("path", ["/v1/tasks/0", "/v1/models/none", "/v1/tasks?limit=0", "/nowhere"])
def test_problem_has_its_shape(api, path):
    # when
    answer = api.call("GET", path)
    # then
    assert answer.content_type == "application/problem+json"
    hold(answer.json, "Problem")


def test_problem_about_a_task_has_its_shape(api):
    # given
    api.register()
    task = queued(api)
    # when
    document = api.call("GET", f"/v1/tasks/{task}/output").json
    # then
    hold(document, "Problem")


def test_a_field_too_many_or_too_few_is_noticed(api):
    # given
    document = api.register()
    shorter = {name: value for name, value in document.items() if name != "limits"}
    # when / then
    for wrong in ({**document, "extra": 1}, shorter, {**document, "created_at": "yesterday"}):
        with pytest.raises(jsonschema.ValidationError):
            hold(wrong, "Model")
