"""Nodes as they report, as admins see and drain them, and whose names they have: on both databases."""

import dataclasses
import io

import pytest
from sqlalchemy import select, update

from contracts.nodes import NodeOrders, NodeReport
from private_api.store.tables import nodes, now_ms, workers
from tests.integration.private_api.callers import problem, zip_of
from tests.integration.private_api.reports import GIB, report, report_of
from tests.integration.private_api.test_database_differences import at_once
from tests.integration.private_api.test_documents_and_shapes import hold


def fall_silent(api, name="n", seconds=31):
    with api.services.database.write() as connection:
        moment = now_ms() - seconds * 1000
        connection.execute(update(nodes).where(nodes.c.name == name).values(heard_at=moment))
    api.services.fleet.forget_nodes()


def show(api, name="n"):
    answer = api.call("GET", f"/v1/nodes/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json


def test_a_node_is_shown_as_it_last_said_it_is(api):
    # Given
    api.register()
    task = api.submit().json["id"]
    report(api, gpus=[24], labels={"site": "north"})
    assert api.claim()["task_id"] == task
    # When
    shown = show(api)
    listed = api.call("GET", "/v1/nodes").json
    # Then
    hold(shown, "Node")
    hold(listed, "NodePage")
    assert listed["items"] == [shown]
    assert (shown["name"], shown["state"], shown["labels"]) == ("n", "ready", {"site": "north"})
    assert [(slot["name"], slot["gpu"], slot["task_id"], slot["model"]) for slot in shown["slots"]] == [
        ("cpu-0", None, task, "echo"),
        ("gpu-0", "GPU-0", None, None),
    ]
    assert shown["gpus"][0]["memory_bytes"] == 24 * GIB
    assert shown["images"] == ["echo:1"]
    # And what a node says of its work is not what is shown: the database knows
    report(api, slots=[{"name": "cpu-1", "kind": "cpu", "task_id": task}])
    assert show(api)["slots"][0]["task_id"] is None


def test_nodes_are_listed_page_by_page(api):
    for name in ("c", "a", "b"):
        report(api, name)
    first = api.call("GET", "/v1/nodes?limit=2").json
    second = api.call("GET", f"/v1/nodes?limit=2&cursor={first['next_cursor']}").json
    assert [node["name"] for page in (first, second) for node in page["items"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


def test_the_answer_to_a_report_is_a_message_of_the_protocol(api):
    orders = NodeOrders.from_json(report(api).json)
    assert (orders.report_seconds, orders.draining, orders.wanted) == (10.0, False, [])
    NodeReport.from_json(report_of())


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({}, "ready"),
        ({"disk": {"total_bytes": 9, "free_bytes": 0, "has_room": False}}, "no_room"),
        ({"leaving": True}, "left"),
    ],
)
def test_a_node_stands_as_it_says(api, told, state):
    report(api, **told)
    assert show(api)["state"] == state


def test_a_node_that_is_not_heard_of_is_silent_until_it_is(api):
    report(api)
    fall_silent(api)
    assert show(api)["state"] == "silent"
    report(api)
    assert show(api)["state"] == "ready"


def test_two_instances_never_share_a_name(api):
    report(api, instance="first")
    document = problem(report(api, instance="second"), "node_name_taken", 409)
    assert "NODE_NAME" in document["detail"]
    # Nor may the second say farewell for the first
    problem(report(api, instance="second", leaving=True), "node_name_taken", 409)
    assert show(api)["state"] == "ready"


@pytest.mark.parametrize("gone", ["left", "silent"])
def test_a_name_is_free_once_its_node_is_gone_and_then_the_other_is_refused(api, gone):
    report(api, instance="first", leaving=gone == "left")
    if gone == "silent":
        fall_silent(api)
    assert report(api, instance="second").status_code == 200
    problem(report(api, instance="first"), "node_name_taken", 409)


def test_of_many_instances_that_come_at_once_one_has_the_name(api):
    answers = at_once(*[lambda n=number: report(api, instance=f"i{n}") for number in range(8)])
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7


def test_a_name_is_not_taken_from_another_key_while_that_opens_doors(api):
    # Given a node of the cluster that is silent
    report(api, instance="first")
    fall_silent(api)
    # When a worker outside, with a key of its own, says that it is this node
    made = api.call("POST", "/v1/keys", json={"name": "outside", "role": "worker"}).json
    # Then it is refused, until an admin has forgotten the node
    problem(report(api, instance="second", key=made["key"]), "node_name_taken", 409)
    assert api.call("DELETE", "/v1/nodes/n").status_code == 204
    assert report(api, instance="second", key=made["key"]).status_code == 200
    # And once its key is revoked, the name is free again
    fall_silent(api)
    problem(report(api, instance="first"), "node_name_taken", 409)
    api.call("DELETE", f"/v1/keys/{made['id']}")
    assert report(api, instance="first").status_code == 200


def test_an_instance_whose_key_was_changed_keeps_its_name(api):
    report(api)
    assert report(api, key=api.key_of("worker")).status_code == 200


def test_a_draining_node_gets_nothing_new_and_goes_on_with_what_runs(api):
    # Given
    api.register()
    report(api)
    api.submit()
    lease = api.claim()
    api.submit()
    # When
    drained = api.call("POST", "/v1/nodes/n/drain")
    # Then
    hold(drained.json, "Node")
    assert (drained.json["state"], drained.json["draining"]) == ("draining", True)
    assert report(api).json["draining"] is True
    wanted = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 0}
    problem(api.call("POST", "/v1/leases", key=api.worker, json=wanted), "node_draining", 409)
    assert api.beat(lease).status_code == 200
    api.finish(lease)
    # And another instance of that name is drained as well, for the wish is about the name
    report(api, leaving=True)
    assert report(api, instance="second").json["draining"] is True
    # When it is resumed
    assert api.call("POST", "/v1/nodes/n/resume").json["state"] == "ready"
    assert report(api, instance="second").json["draining"] is False
    assert api.claim() is not None


def test_a_node_is_forgotten_only_when_it_is_gone(api):
    report(api)
    api.claim()
    problem(api.call("DELETE", "/v1/nodes/n"), "node_in_use", 409)
    report(api, leaving=True)
    assert api.call("DELETE", "/v1/nodes/n").status_code == 204
    problem(api.call("GET", "/v1/nodes/n"), "node_not_found", 404)
    with api.services.database.read() as connection:
        assert connection.execute(select(workers)).all() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nodes/none"),
        ("POST", "/v1/nodes/none/drain"),
        ("POST", "/v1/nodes/none/resume"),
        ("DELETE", "/v1/nodes/none"),
    ],
)
def test_a_node_that_never_reported_is_not_there(api, method, path):
    problem(api.call(method, path), "node_not_found", 404)


def test_who_may_do_what(api):
    user = api.key_of("user")
    report(api)
    for method, path in (
        ("GET", "/v1/nodes"),
        ("GET", "/v1/nodes/n"),
        ("POST", "/v1/nodes/n/drain"),
        ("POST", "/v1/nodes/n/resume"),
        ("DELETE", "/v1/nodes/n"),
    ):
        for key in (user, api.worker):
            problem(api.call(method, path, key=key), "forbidden", 403)
    for key in (user, api.admin):
        problem(report(api, key=key), "forbidden", 403)
        problem(api.call("GET", f"/v1/nodes/n/content/{'a' * 64}", key=key), "forbidden", 403)


@pytest.mark.parametrize(
    "fields",
    [
        {"instance": ""},
        {"instance": "x" * 65},
        {"labels": {"a": "x" * 600}},
        {"labels": {f"l{n}": "1" for n in range(65)}},
        {"images": ["x"] * 201},
        {"cpu_slots": 257},
        {"gpus": [-1]},
        {"disk": {"total_bytes": 1, "free_bytes": -1, "has_room": True}},
        {"machine": {"cpus": "many"}},
        {"slots": [{"name": "s", "kind": "tpu"}]},
        {"slots": None},
    ],
)
def test_a_report_that_is_none_is_refused_and_changes_nothing(api, fields):
    problem(report(api, **fields), "invalid_field", 422)
    problem(api.call("GET", "/v1/nodes/n"), "node_not_found", 404)


@pytest.mark.parametrize("name", ["-n", "n" * 64, "a%20b", "%C3%A9"])
def test_a_name_that_no_consumer_may_have_is_refused(api, name):
    problem(report(api, name), "invalid_field", 422)


def test_nul_in_a_report_is_stored_on_both_databases(api):
    assert report(api, labels={"a": "\0"}, images=["\0"]).status_code == 200
    assert show(api)["labels"] == {"a": "\N{REPLACEMENT CHARACTER}"}


# What a node should have ready.


def add_with_content(api, name, text, **fields):
    form = {"human_readable_id": name, "container_tag": f"{name}:1", **fields}
    form["zip_file"] = (io.BytesIO(zip_of(a=text)), "m.zip")
    answer = api.call("POST", "/v1/models", data=form)
    assert answer.status_code == 201, answer.text
    return answer.json["content"]["sha256"]


def wanted_by(api, **fields):
    return [model["model"] for model in report(api, **fields).json["wanted"]]


def test_a_node_is_told_of_the_models_that_it_may_run_the_last_changed_first(api):
    sha256 = add_with_content(api, "a", "weights")
    api.register("b", use_gpu=True)
    api.register("c", memory_bytes=1024 * GIB)
    api.register("d", enabled=False)
    api.register("e", node_labels={"site": "north"})
    assert wanted_by(api) == ["a"]
    assert wanted_by(api, gpus=[8]) == ["b", "a"]
    assert wanted_by(api, labels={"site": "north"}) == ["e", "a"]
    wanted = report(api).json["wanted"][0]
    assert wanted["image"] == {"tag": "a:1", "image_id": None, "digest": None, "pull_policy": "if_missing"}
    assert wanted["content"]["sha256"] == sha256
    # A change is told with the next report
    api.call("PATCH", "/v1/models/d", json={"enabled": True})
    assert wanted_by(api) == ["d", "a"]
    api.call("DELETE", "/v1/models/d")
    assert wanted_by(api) == ["a"]


def test_a_node_that_takes_no_tasks_prepares_nothing(api):
    api.register()
    assert wanted_by(api) == ["echo"]
    assert wanted_by(api, leaving=True) == []
    report(api)
    api.call("POST", "/v1/nodes/n/drain")
    assert wanted_by(api) == []


def test_no_node_prepares_for_more_than_it_could_hold_in_mind(api):
    for number in range(52):
        api.register(f"m{number:02}")
    assert wanted_by(api) == [f"m{number:02}" for number in range(51, 1, -1)]


def test_content_is_fetched_before_any_task_by_the_node_that_reported(api):
    sha256 = add_with_content(api, "a", "weights")
    path = f"/v1/nodes/n/content/{sha256}"
    problem(api.call("GET", path, key=api.worker), "node_not_found", 404)
    report(api)
    assert api.call("GET", path, key=api.worker).data == zip_of(a="weights")
    # Not by another key, nor anything else, nor of a model that takes no tasks
    problem(api.call("GET", path, key=api.key_of("worker")), "node_not_found", 404)
    problem(api.call("GET", f"/v1/nodes/n/content/{'0' * 64}", key=api.worker), "not_found", 404)
    problem(api.call("GET", "/v1/nodes/n/content/x", key=api.worker), "invalid_field", 422)
    api.call("PATCH", "/v1/models/a", json={"enabled": False})
    problem(api.call("GET", path, key=api.worker), "not_found", 404)


def test_a_key_bound_to_models_prepares_for_these_alone(api):
    mine, other = add_with_content(api, "mine", "1"), add_with_content(api, "other", "2")
    bound = {"name": "home", "role": "worker", "models": ["mine"]}
    key = api.call("POST", "/v1/keys", json=bound).json["key"]
    assert wanted_by(api, key=key) == ["mine"]
    assert api.call("GET", f"/v1/nodes/n/content/{mine}", key=key).status_code == 200
    problem(api.call("GET", f"/v1/nodes/n/content/{other}", key=key), "not_found", 404)


def test_a_thousand_nodes_report_half_as_often(api):
    said = NodeReport.from_json(report_of()).to_json()
    with api.services.database.write() as connection:
        row = {
            "instance": "i", "key_id": "k", "report": said, "draining": False, "left": False,
            "first_heard_at": now_ms(), "heard_at": now_ms(),
        }  # fmt: skip
        for number in range(1000):
            connection.execute(nodes.insert().values(name=f"n{number}", **row))
    assert report(api).json["report_seconds"] == 20.0


def test_metrics_count_nodes_by_state(api):
    report(api, "a")
    report(api, "b", disk={"total_bytes": 9, "free_bytes": 0, "has_room": False})
    report(api, "c", leaving=True)
    report(api, "d")
    fall_silent(api, "d")
    report(api, "e")
    api.call("POST", "/v1/nodes/e/drain")
    text = api.app.test_client().get("/metrics").text
    for state in ("ready", "no_room", "left", "silent", "draining"):
        assert f'inferenceserver_nodes{{state="{state}"}} 1.0' in text


def test_a_report_is_read_back_as_it_was_said(api):
    said = NodeReport.from_json(report_of(gpus=[11, 24], labels={"a": "b"}))
    report(api, gpus=[11, 24], labels={"a": "b"})
    with api.services.database.read() as connection:
        kept = connection.execute(select(nodes.c.report)).scalar_one()
    assert NodeReport.from_json(kept) == dataclasses.replace(said, leaving=False)
