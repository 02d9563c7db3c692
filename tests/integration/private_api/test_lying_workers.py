"""A worker outside that lies: whatever it says, it harms no task but its own, and that one goes elsewhere."""

import json

import pytest
from sqlalchemy import select, update

from private_api.store.tables import now_ms, tasks
from private_api.upkeep import reap_once
from tests.integration.private_api.callers import Api, problem, zip_of

CLAIM = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 0}
OUTPUT = {"size_bytes": 1, "sha256": "a" * 64}
VERBS = [
    ("POST", "heartbeat", {"json": {"phase": "running", "wait_seconds": 0}}),
    ("POST", "logs", {"data": b"never mind"}),
    ("GET", "input", {}),
    ("GET", "content", {}),
    ("PUT", "output", {"data": zip_of(a="forged")}),
    ("POST", "complete", {"json": {"output": OUTPUT, "exit_code": 0, "durations": {}}}),
    ("POST", "fail", {"json": {"reason_code": "timed_out", "reason": "x", "exit_code": 1, "durations": {}}}),
]  # fmt: skip


@pytest.fixture
def liar(api):
    """The same server, as a worker with a key of its own sees it."""
    return Api(api.app, api.services, api.directory, api.admin, api.key_of("worker", "liar"))


def report_of(*slots, instance="i", labels=None):
    return {
        "instance": instance,
        "machine": {"cpus": 8, "memory_bytes": 2**36, "architecture": "x86_64", "engine_version": "20"},
        "disk": {"total_bytes": 2**40, "free_bytes": 2**39, "has_room": True},
        "slots": [{"name": name, "kind": kind} for name, kind in slots],
        "gpus": [],
        "labels": labels or {},
        "images": [],
    }


def reported(worker, node, *slots, **more):
    answer = worker.call(
        "POST", f"/v1/nodes/{node}/report", key=worker.worker, json=report_of(*slots, **more)
    )
    assert answer.status_code == 200, answer.text


def let_back_off_pass(api):
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(not_before=0))


def pass_the_phases_limit(api):
    reap_once(api.services)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(phase_deadline_at=now_ms() - 1))
    reap_once(api.services)


@pytest.mark.parametrize(("method", "verb", "arguments"), VERBS, ids=[verb for _, verb, _ in VERBS])
def test_another_workers_lease_does_not_exist_even_for_who_knows_it(api, liar, method, verb, arguments):
    # Given a task that an honest worker runs
    api.register()
    task = api.submit().json["id"]
    lease = api.claim()
    before = api.task(task)
    blobs = api.blobs()
    # When a liar knows its lease and token, or guesses
    problem(liar.about(lease, verb, method, **arguments), "stale_lease", 409)
    wrong_token = {**lease, "token": lease["token"] + 1}
    problem(liar.about(wrong_token, verb, method, **arguments), "stale_lease", 409)
    problem(liar.about({**lease, "lease_id": "0" * 32}, verb, method, **arguments), "stale_lease", 409)
    # Then nothing has changed, and the honest one ends it well
    assert api.task(task) == before
    assert api.blobs() == blobs
    api.finish(lease)
    assert api.task(task)["state"] == "succeeded"


def test_a_completion_must_name_what_was_uploaded(api, liar):
    api.register()
    task = api.submit().json["id"]
    lease = liar.claim()
    claimed = {"size_bytes": 10, "sha256": "ab" * 32}
    completion = {"output": claimed, "exit_code": 0, "durations": {}}
    problem(liar.about(lease, "complete", json=completion), "checksum_mismatch", 422)
    assert liar.about(lease, "output", "PUT", data=zip_of(a="1")).status_code == 200
    problem(liar.about(lease, "complete", json=completion), "checksum_mismatch", 422)
    assert api.task(task)["state"] == "starting"


def test_an_output_beyond_the_models_limit_is_refused_with_and_without_a_length(api, liar):
    api.register(output_bytes=1, output_files=1)
    api.submit()
    lease = liar.claim()
    before = api.blobs()
    large = b"x" * 200_000
    problem(liar.about(lease, "output", "PUT", data=large), "too_large", 413)
    assert api.blobs() == before


def test_a_log_has_an_end_whoever_writes_it(api, liar):
    api.register(log_bytes=1024)
    task = api.submit().json["id"]
    lease = liar.claim()
    for offset in range(0, 10_000, 1000):
        stored = liar.about(lease, f"logs?offset={offset}", data=b"x" * 1000).json["log_bytes"]
        assert stored <= 1024
    # The same again from offset 0, and a piece that is larger than any
    assert liar.about(lease, "logs?offset=0", data=b"y" * 5000).json == {"log_bytes": 1024}
    problem(liar.about(lease, "logs?offset=1024", data=b"z" * (4 * 1024**2 + 1)), "too_large", 413)
    assert api.task(task)["log"]["size_bytes"] < 1200


def test_who_never_finishes_loses_the_task_and_is_not_the_first_to_get_it_again(api, liar):
    # Given a worker that says for ever that it works
    api.register()
    task = api.submit().json["id"]
    lease = liar.claim()
    for phase in ("pulling", "fetching", "pulling", "running", "uploading", "running"):
        assert liar.beat(lease, phase).status_code == 200
    # When the phase's limit is over, then the server takes the task back
    pass_the_phases_limit(api)
    assert api.task(task)["state"] == "queued"
    problem(liar.beat(lease, "uploading"), "stale_lease", 409)
    # And its back-off having passed, another worker gets it before the one that had it
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(not_before=now_ms()))
    assert liar.claim() is None
    api.finish(api.claim())
    assert api.task(task)["state"] == "succeeded"


def test_a_worker_that_is_alone_gets_a_spoiled_task_again_but_not_for_ever(api, liar):
    api.register()
    task = api.submit().json["id"]
    for _ in range(5):
        assert api.task(task)["state"] == "queued"
        liar.claim()
        pass_the_phases_limit(api)
        let_back_off_pass(api)
    assert api.task(task)["state"] == "failed"
    assert liar.claim() is None


def test_a_node_holds_no_more_leases_than_its_slots_can_have(api, liar):
    # Given a node that says it has one slot, and many tasks
    api.register()
    for _ in range(4):
        api.submit()
    reported(liar, "n", ("cpu-0", "cpu"))
    # When it claims for all of them, one of its own and one that it may have lost are all it gets
    assert liar.claim() is not None
    assert liar.claim(slot="cpu-0") is not None
    answer = liar.call("POST", "/v1/leases", key=liar.worker, json=CLAIM)
    problem(answer, "rate_limited", 429)
    # Then the others are there for others
    others = {**CLAIM, "node": "honest"}
    assert api.call("POST", "/v1/leases", key=api.worker, json=others).status_code == 200


def test_a_node_that_never_said_what_it_has_is_bounded_too(api, liar, monkeypatch):
    monkeypatch.setattr("private_api.store.claims._LEASES_OF_UNKNOWN", 2)
    api.register()
    for _ in range(3):
        api.submit()
    assert liar.claim(slot="a") is not None
    assert liar.claim(slot="b") is not None
    problem(liar.call("POST", "/v1/leases", key=liar.worker, json=CLAIM | {"slot": "c"}), "rate_limited", 429)


def test_a_slot_is_of_the_kind_that_its_node_reported(api, liar):
    api.register(use_gpu=True)
    api.submit()
    reported(liar, "n", ("cpu-0", "cpu"))
    for slot in ("cpu-0", "gpu-0"):
        assert liar.claim(kinds=["gpu"], slot=slot) is None
        assert liar.claim(kinds=["cpu", "gpu"], slot=slot) is None
    reported(liar, "n", ("cpu-0", "cpu"), ("gpu-0", "gpu"))
    assert liar.claim(kinds=["gpu"], slot="cpu-0") is None
    assert liar.claim(kinds=["gpu"], slot="gpu-0") is not None


def test_nobody_speaks_for_another_keys_node(api, liar):
    # Given an honest node
    api.register()
    api.submit()
    reported(api, "n", ("cpu-0", "cpu"), labels={"site": "north"})
    # When a liar reports, or claims, under its name
    forged = report_of(("cpu-0", "cpu"), instance="other")
    answer = liar.call("POST", "/v1/nodes/n/report", key=liar.worker, json=forged)
    problem(answer, "node_name_taken", 409)
    problem(liar.call("POST", "/v1/leases", key=liar.worker, json=CLAIM), "node_name_taken", 409)
    # Then the node is what it said itself
    assert api.call("GET", "/v1/nodes/n").json["labels"] == {"site": "north"}
    assert api.claim() is not None


def test_a_bound_key_gets_tasks_of_its_models_only(api):
    api.register("lung")
    api.register("liver")
    made = api.call("POST", "/v1/keys", json={"name": "home", "role": "worker", "models": ["liver"]}).json
    home = Api(api.app, api.services, api.directory, api.admin, made["key"])
    api.submit("lung")
    assert home.claim() is None
    mine = api.submit("liver").json["id"]
    assert home.claim()["task_id"] == mine
    # And it sees no other model either
    seen = home.call("GET", "/v1/models", key=home.worker).json["items"]
    assert [model["human_readable_id"] for model in seen] == ["liver"]
    problem(home.call("GET", "/v1/models/lung", key=home.worker), "model_not_found", 404)
    assert home.call("GET", "/v1/models/liver", key=home.worker).status_code == 200


def test_a_revoked_key_opens_nothing_from_that_moment_on(api):
    made = api.call("POST", "/v1/keys", json={"name": "home", "role": "worker"}).json
    home = Api(api.app, api.services, api.directory, api.admin, made["key"])
    api.register()
    task = api.submit().json["id"]
    lease = home.claim()
    assert api.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    for method, verb, arguments in VERBS:
        problem(home.about(lease, verb, method, **arguments), "unauthenticated", 401)
    problem(home.call("POST", "/v1/leases", key=home.worker, json=CLAIM), "unauthenticated", 401)
    # Its task goes elsewhere once its lease has run out
    reap_once(api.services)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(lease_expires_at=now_ms() - 1))
    reap_once(api.services)
    let_back_off_pass(api)
    assert api.claim()["task_id"] == task


NONSENSE = [
    None,
    True,
    -1,
    1.5,
    2**63,
    1e300,
    "",
    "\x00",
    "x" * 100_000,
    [],
    {},
    [[]],
    {"a": {}},
    "\u202e",
    ["gpu", 7],
]
SAID = {
    "/v1/leases": CLAIM | {"task_id": "0" * 32},
    "/v1/leases/withdraw": {"node": "n", "slot": "s"},
    "heartbeat": {
        "phase": "running",
        "wait_seconds": 0,
        "progress": {"fraction": 0.5, "message": "m"},
        "image": {"image_id": "i", "digest": "d"},
    },
    "complete": {
        "output": {"size_bytes": 1, "sha256": "a" * 64},
        "exit_code": 0,
        "durations": {"running": 1.0},
        "progress": {"fraction": 0.5, "message": "m"},
    },
    "fail": {
        "reason_code": "exit_nonzero",
        "reason": "r",
        "exit_code": 1,
        "durations": {"running": 1.0},
        "progress": {"fraction": 0.5, "message": "m"},
    },
    "/v1/nodes/n/report": {
        **report_of(("cpu-0", "cpu")),
        "gpus": [{"uuid": "u", "name": "n", "memory_bytes": 1}],
    },
}  # fmt: skip


def variants(document):
    """``document`` with each of its fields, inner ones too, replaced by each kind of nonsense, or gone."""
    for name, value in document.items():
        for nonsense in NONSENSE:
            yield {**document, name: nonsense}
        yield {key: other for key, other in document.items() if key != name}
        if isinstance(value, dict):
            for inner in variants(value):
                yield {**document, name: inner}
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for inner in variants(value[0]):
                yield {**document, name: [inner]}


@pytest.mark.parametrize("where", SAID)
def test_nonsense_in_any_field_is_refused_and_never_our_mistake(api, liar, where):
    api.register()
    task = api.submit().json["id"]
    lease = liar.claim()
    statuses = set()
    for document in variants(SAID[where]):
        if where.startswith("/"):
            answer = liar.call("POST", where, key=liar.worker, json=document)
        else:
            answer = liar.about(lease, where, json=document)
        assert answer.status_code in {200, 204, 409, 413, 422, 429}, (document, answer.text)
        statuses.add(answer.status_code)
        if answer.status_code == 422:
            assert answer.json["code"] in {"invalid_field", "invalid_json", "checksum_mismatch"}
    assert 422 in statuses
    # What was stored of it can be read, and shown
    assert api.call("GET", f"/v1/tasks/{task}").status_code == 200
    assert api.call("GET", "/v1/nodes").status_code == 200
    with api.services.database.read() as connection:
        connection.execute(select(tasks)).all()


@pytest.mark.parametrize("path", ["/v1/leases", "/v1/leases/withdraw", "/v1/nodes/n/report"])
def test_bodies_are_bounded(api, liar, path):
    body = json.dumps({"node": "x" * 10_000_000})
    answer = liar.call("POST", path, key=liar.worker, data=body, content_type="application/json")
    problem(answer, "too_large", 413)
    deep = "[" * 100_000
    answer = liar.call("POST", path, key=liar.worker, data=deep, content_type="application/json")
    problem(answer, "invalid_json", 400 if answer.status_code == 400 else 422)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"role": "user", "models": ["echo"]}, "worker"),
        ({"role": "worker", "models": []}, "models"),
        ({"role": "worker", "models": ["nothing"]}, "nothing"),
        ({"role": "worker", "models": ["echo", "echo"]}, "twice"),
        ({"role": "worker", "models": "echo"}, "models"),
        ({"role": "worker", "models": [7]}, "models"),
    ],
)
def test_what_a_key_is_bound_to_is_checked(api, fields, names):
    api.register()
    assert (
        names
        in problem(api.call("POST", "/v1/keys", json={"name": "k", **fields}), "invalid_field", 422)["detail"]
    )


def test_a_key_says_what_it_is_bound_to(api):
    api.register()
    made = api.call("POST", "/v1/keys", json={"name": "k", "role": "worker", "models": ["echo"]}).json
    assert made["models"] == ["echo"]
    assert api.call("GET", "/v1/keys/self", key=made["key"]).json["models"] == ["echo"]
    listed = api.call("GET", "/v1/keys").json["items"]
    assert {key["name"]: key["models"] for key in listed}["k"] == ["echo"]
    assert {key["name"]: key["models"] for key in listed}["first worker"] is None
