"""Claims take what fits their slot, and the answers about what fits none: on both databases."""

import itertools
import threading

import pytest
from sqlalchemy import event, select, text, update

from contracts.messages import ClaimRequest, SlotKind
from private_api.store.claims import slot_of
from private_api.store.next_task import next_task
from private_api.store.tables import nodes, now_ms, tasks
from tests.integration.private_api.callers import problem
from tests.integration.private_api.reports import GIB, report
from tests.integration.private_api.test_database_differences import at_once

GPU_24 = {"use_gpu": True, "gpu_memory_bytes": 24 * GIB}


class Announcements:
    """Stands where the broker's announcer does, and keeps what it is told."""

    def __init__(self):
        self.held_back = []

    def announce(self, kind, task_id, delay_seconds=0.0):
        pass

    def hold_back(self, kind, task_id):
        self.held_back.append((kind, task_id))


def claim(api, node, kind="cpu", slot=None, key=None, **fields):
    wanted = {"node": node, "slot": slot or f"{kind}-0", "kinds": [kind], "wait_seconds": 0, **fields}
    answer = api.call("POST", "/v1/leases", key=key or api.worker, json=wanted)
    assert answer.status_code in {200, 204}, answer.text
    return answer.json if answer.status_code == 200 else None


@pytest.mark.parametrize(
    ("asked", "fitting", "other"),
    [
        (GPU_24, {"gpus": [24]}, {"gpus": [11]}),
        ({"memory_bytes": 24 * GIB}, {}, {"machine": {"memory_bytes": 16 * GIB}}),
        ({"cpus": 6}, {}, {"machine": {"cpus": 4.0}}),
        ({"node_labels": {"site": "north"}}, {"labels": {"site": "north"}}, {"labels": {"site": "south"}}),
    ],
)
def test_a_task_goes_only_to_a_slot_that_it_fits(api, asked, fitting, other):
    # Given two nodes, one of which the model fits
    machine = {"cpus": 8.0, "memory_bytes": 32 * GIB, "architecture": "x86_64", "engine_version": "20"}
    other = {**other, **({"machine": {**machine, **other["machine"]}} if "machine" in other else {})}
    report(api, "fits", **fitting)
    report(api, "does-not", **other)
    api.register("picky", **asked)
    kind = "gpu" if asked.get("use_gpu") else "cpu"
    task = api.submit("picky").json["id"]
    # Then
    assert claim(api, "does-not", kind) is None
    assert api.task(task)["waiting_for"] is None
    assert claim(api, "fits", kind)["task_id"] == task


def test_what_fits_is_taken_from_behind_what_does_not(api):
    report(api, gpus=[11])
    api.register("big", **GPU_24)
    api.register("small", use_gpu=True)
    for _ in range(3):
        api.submit("big")
    first, second = (api.submit("small").json["id"] for _ in range(2))
    assert [claim(api, "n", "gpu")["task_id"] for _ in range(2)] == [first, second]
    assert claim(api, "n", "gpu") is None


def test_among_what_fits_the_order_is_that_of_the_queue(api):
    report(api, cpu_slots=4)
    for model in ("a", "b", "never"):
        api.register(model, **({"cpus": 1000} if model == "never" else {}))

    def send(model, priority):
        path = f"/v1/tasks?model_human_readable_id={model}&priority={priority}"
        body = api.call("GET", f"/v1/tasks/{first}/input").data
        return api.call("POST", path, data=body, content_type="application/zip").json["id"]

    first = api.submit("never").json["id"]
    b0, a0, a5, b5, _ = (
        send(model, n) for model, n in (("b", 0), ("a", 0), ("a", 5), ("b", 5), ("never", 9))
    )
    assert [claim(api, "n")["task_id"] for _ in range(4)] == [a5, b5, b0, a0]


def test_each_slot_of_a_node_is_judged_by_its_own_gpu(api):
    report(api, gpus=[11, 24])
    api.register("big", **GPU_24)
    task = api.submit("big").json["id"]
    assert claim(api, "n", "gpu", "gpu-0") is None
    assert claim(api, "n", "gpu", "gpu-1")["task_id"] == task


def test_a_node_that_never_reported_is_taken_at_its_word(api):
    api.register("big", **GPU_24, node_labels={"site": "north"}, cpus=500)
    task = api.submit("big").json["id"]
    assert claim(api, "n", "cpu") is None
    assert claim(api, "n", "gpu")["task_id"] == task


def test_the_last_report_counts_not_the_first(api):
    report(api, labels={"site": "south"})
    api.register("picky", node_labels={"site": "north"})
    task = api.submit("picky").json["id"]
    assert claim(api, "n") is None
    report(api, labels={"site": "north"})
    assert claim(api, "n")["task_id"] == task


def test_a_held_claim_hears_of_its_nodes_new_label(api):
    # Given a claim that waits, and a task that does not fit its node
    report(api, labels={"site": "south"})
    api.register("picky", node_labels={"site": "north"})
    task = api.submit("picky").json["id"]
    leases = []
    waiting = threading.Thread(target=lambda: leases.append(claim(api, "n", wait_seconds=30)))
    waiting.start()
    # When
    report(api, labels={"site": "north"})
    # Then
    waiting.join(15)
    assert leases[0]["task_id"] == task


def test_a_model_changed_while_tasks_wait_is_placed_as_it_is_now(api):
    report(api)
    api.register("picky", node_labels={"site": "north"})
    task = api.submit("picky").json["id"]
    assert claim(api, "n") is None
    api.call("PATCH", "/v1/models/picky", json={"node_labels": None})
    assert claim(api, "n")["task_id"] == task


def test_a_key_bound_to_models_takes_their_tasks_alone(api):
    api.register("mine")
    api.register("other")
    bound = {"name": "home", "role": "worker", "models": ["mine"]}
    key = api.call("POST", "/v1/keys", json=bound).json["key"]
    api.submit("other")
    task = api.submit("mine").json["id"]
    # Whether its node reports or not
    assert claim(api, "home", key=key)["task_id"] == task
    task = api.submit("mine").json["id"]
    report(api, "home", key=key)
    assert claim(api, "home", key=key)["task_id"] == task
    assert claim(api, "home", key=key) is None
    assert claim(api, "n") is not None


def test_a_lease_is_nobody_elses(api):
    # Given a lease, and another worker that knows its id and token
    api.register()
    api.submit()
    lease = api.claim()
    stranger = api.key_of("worker")
    headers = {"Lease-Token": str(lease["token"])}
    failure = {"reason_code": "exit_nonzero", "reason": "x", "exit_code": 1, "durations": {}}
    completion = {"output": {"size_bytes": 1, "sha256": "0" * 64}, "exit_code": 0, "durations": {}}
    for verb, method, arguments in (
        ("heartbeat", "POST", {"json": {"phase": "running", "wait_seconds": 0}}),
        ("logs?offset=0", "POST", {"data": b"lies"}),
        ("input", "GET", {}),
        ("content", "GET", {}),
        ("output", "PUT", {"data": b"lies"}),
        ("complete", "POST", {"json": completion}),
        ("fail", "POST", {"json": failure}),
    ):
        path = f"/v1/leases/{lease['lease_id']}/{verb}"
        # Then it is told what it would be told of a lease that never was
        answer = api.call(method, path, key=stranger, headers=headers, **arguments)
        problem(answer, "stale_lease", 409)
    # And its holder notices nothing
    assert api.beat(lease).json["log_bytes"] == 0
    api.finish(lease)


def test_a_lease_of_the_release_before_is_its_holders_still(api):
    api.register()
    api.submit()
    lease = api.claim()
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(key_id=None))
    assert api.beat(lease).status_code == 200


# What is said of a task that no node could run.


def test_a_task_that_fits_no_node_says_what_it_waits_for(api):
    api.register("big", **GPU_24)
    task = api.submit("big").json["id"]
    assert api.task(task)["waiting_for"] == "a worker with a GPU slot; none is connected at the moment"
    report(api, "cpu-node")
    assert api.task(task)["waiting_for"] == "a GPU; no node has one"
    report(api, "gpu-node", gpus=[11])
    assert api.task(task)["waiting_for"] == "24 GB of GPU memory; the largest node has 11"
    # A node that never reported, whose GPU nobody knows, may be the one
    claim(api, "unknown", "gpu", slot="gpu-9")
    other = api.submit("big").json["id"]
    assert api.task(other)["waiting_for"] is None


def test_a_task_whose_only_node_drains_or_leaves_says_so(api):
    report(api, labels={"site": "north"})
    report(api, "plain")
    api.register("picky", node_labels={"site": "north"})
    task = api.submit("picky").json["id"]
    assert api.task(task)["waiting_for"] is None
    api.call("POST", "/v1/nodes/n/drain")
    assert "draining" in api.task(task)["waiting_for"]
    api.call("POST", "/v1/nodes/n/resume")
    assert api.task(task)["waiting_for"] is None
    report(api, labels={"site": "north"}, leaving=True)
    assert api.task(task)["waiting_for"] == "the label site=north; no node has it"


def test_slots_of_a_node_that_is_silent_count_for_nothing(api):
    # Given a slot that was heard of with its node, and then its node is silent
    report(api)
    assert claim(api, "n") is None
    with api.services.database.write() as connection:
        connection.execute(update(nodes).values(heard_at=now_ms() - 31_000))
    api.services.fleet.forget_nodes()
    # Then
    api.register()
    task = api.submit().json["id"]
    assert api.task(task)["waiting_for"] == "a worker with a CPU slot; none is connected at the moment"
    text_ = api.app.test_client().get("/metrics").text
    assert 'inferenceserver_slots_heard{kind="cpu"} 0.0' in text_


def test_registering_and_changing_warn_of_what_fits_no_node(api):
    # Nothing can be said before any node is there
    assert api.register("early", **GPU_24)["warnings"] == []
    report(api, gpus=[11])
    warnings = ["No node could run this model now. It needs 24 GB of GPU memory; the largest node has 11."]
    assert api.register("big", **GPU_24)["warnings"] == warnings
    assert api.register("fine")["warnings"] == []
    changed = api.call("PATCH", "/v1/models/fine", json={"node_labels": {"site": "north"}}).json
    assert changed["warnings"] == [
        "No node could run this model now. It needs the label site=north; no node has it."
    ]
    assert changed["node_labels"] == {"site": "north"}
    back = api.call("PATCH", "/v1/models/fine", json={"node_labels": None}).json
    assert (back["warnings"], back["node_labels"]) == ([], {})


@pytest.mark.parametrize(
    "fields",
    [
        {"gpu_memory_bytes": GIB},
        {"use_gpu": True, "gpu_memory_bytes": 1},
        {"use_gpu": True, "gpu_memory_bytes": "much"},
        {"node_labels": ["site"]},
        {"node_labels": "site=north"},
        {"node_labels": {"": "north"}},
        {"node_labels": {"site": "north pole"}},
        {"node_labels": {"site\n": "north"}},
        {"node_labels": {"site": 1}},
        {"node_labels": {f"l{n}": "" for n in range(33)}},
    ],
)
def test_what_no_node_could_be_asked_is_refused(api, fields):
    body = {"human_readable_id": "m", "container_tag": "m:1", **fields}
    problem(api.call("POST", "/v1/models", json=body), "invalid_field", 422)


def test_a_gpus_memory_is_not_left_behind_by_a_model_without_one(api):
    api.register("big", **GPU_24)
    problem(api.call("PATCH", "/v1/models/big", json={"use_gpu": False}), "invalid_field", 422)
    changed = api.call("PATCH", "/v1/models/big", json={"use_gpu": False, "gpu_memory_bytes": None})
    assert (changed.status_code, changed.json["gpu_memory_bytes"]) == (200, None)


def test_labels_come_with_a_form_as_json(api):
    form = {"human_readable_id": "m", "container_tag": "m:1", "node_labels": '{"site": "north"}'}
    answer = api.call("POST", "/v1/models", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["node_labels"]) == (201, {"site": "north"})
    wrong = {"node_labels": "{"}
    answer = api.call("PATCH", "/v1/models/m", data=wrong, content_type="multipart/form-data")
    problem(answer, "invalid_field", 422)


# Over the broker.


@pytest.fixture
def announcer(api):
    announcements = Announcements()
    object.__setattr__(api.services, "announcer", announcements)
    return announcements


def test_a_hint_of_what_does_not_fit_is_passed_on(api, announcer):
    report(api, gpus=[11])
    api.register("big", **GPU_24)
    task = api.submit("big").json["id"]
    assert claim(api, "n", "gpu", task_id=task) is None
    assert announcer.held_back == [(SlotKind.GPU, task)]


def test_a_hint_is_not_passed_on_where_nothing_would_come_of_it(api, announcer):
    report(api, gpus=[11])
    api.register("big", **GPU_24)
    api.register("small", use_gpu=True)
    big, small = api.submit("big").json["id"], api.submit("small").json["id"]
    # It led to another task, whose own announcement is still on its way
    assert claim(api, "n", "gpu", task_id=big)["task_id"] == small
    # It is late: its task is taken, or gone
    assert claim(api, "n", "gpu", task_id=small) is None
    assert claim(api, "n", "gpu", task_id="0" * 32) is None
    # Nothing else fits either, and nobody was told of anything
    assert claim(api, "n", "gpu") is None
    assert announcer.held_back == []


# Many.


def _fill(api, model, count):
    """``count`` queued tasks of a model, straight into the database."""
    fill = """
        INSERT INTO tasks (id, owner_id, model_id, version_id, kind, priority, state, attempt, spoiled,
            cancel_requested, queued_at, not_before, token, input_key, input_size, input_sha256, log_size,
            log_base, durations, created_at)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
        SELECT :model || '-' || n, 'o', m.id, v.id, 'cpu', 0, 'queued', 0, 0, false, n, 0, 0,
            'inputs/' || n, 1, 'ab', 0, 0, '{}', n
        FROM numbers, models m JOIN model_versions v ON v.model_id = m.id
        WHERE m.human_readable_id = :model"""
    with api.services.database.write() as connection:
        connection.execute(text(fill), {"count": count, "model": model})


def _work_of(api, ask):
    """What the statements that ``ask`` runs cost the database: pages, or hundreds of its machine's steps."""
    database = api.services.database
    cost = 0
    with database.write() as connection:
        if not database.is_remote:

            def step():
                nonlocal cost
                cost += 1

            raw = connection.connection.driver_connection
            raw.set_progress_handler(step, 100)
            ask(connection)
            raw.set_progress_handler(None, 0)
            return cost
        seen = []

        def note(_connection, _cursor, statement, parameters, _context, _many):
            seen.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", note)
        ask(connection)
        event.remove(connection, "before_cursor_execute", note)
        # Each once more, explained on the same connection.
        for statement, parameters in seen:
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
            plan = connection.exec_driver_sql(explain, parameters).scalar_one()[0]["Plan"]
            cost += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return cost


@pytest.mark.timeout(180)
def test_a_hundred_thousand_tasks_that_do_not_fit_cost_a_claim_nothing(api):
    # Given statistics of a time when nothing was queued, as a database has them for a minute after that
    report(api)
    api.register("past")
    _fill(api, "past", 50)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(state="succeeded"))
        connection.execute(text("ANALYZE"))
    # And a queue that is long by now, most of it of models that this node may not run
    for number in range(20):
        api.register(f"big{number}", cpus=1000)
        _fill(api, f"big{number}", 5000)
    api.register("small")
    _fill(api, "small", 3)
    wanted = ClaimRequest(node="n", slot="cpu-0", kinds=[SlotKind.CPU], wait_seconds=0)

    def ask(connection):
        key_id = connection.execute(select(nodes.c.key_id)).scalar_one()
        slot = slot_of(connection, wanted, key_id=key_id, bound_to=None)
        assert next_task(connection, wanted.kinds, slot, lock=True) is not None

    # Then what the database does for it is nothing beside a walk through the queue: that reads 2,000 pages at
    # the least, or takes a million steps
    cost = _work_of(api, ask)
    assert cost < (500 if api.services.database.is_remote else 400)
    # And the claims take what fits, in its order
    for number in range(1, 4):
        lease = claim(api, "n")
        assert lease["task_id"] == f"small-{number}"
        api.fail(lease, "exit_nonzero", exit_code=1)
    assert claim(api, "n") is None


@pytest.mark.timeout(180)
def test_racing_claims_of_different_slots_lose_none_and_break_no_rule(api):
    # Given tasks of three models, and nodes of which each may run some of them
    report(api, "north", cpu_slots=4, labels={"site": "north"})
    report(api, "south", cpu_slots=4, labels={"site": "south"})
    api.register("north", node_labels={"site": "north"})
    api.register("south", node_labels={"site": "south"})
    api.register("any")
    for model in ("north", "south", "any"):
        _fill(api, model, 40)
    got = {"north": [], "south": []}

    def race(node, slot):
        while True:
            answer = claim(api, node, slot=f"cpu-{slot}")
            if answer is None:
                return
            got[node].append((answer["model"], answer["task_id"]))
            api.fail(answer, "exit_nonzero", exit_code=1)

    # When
    at_once(*[lambda node=node, slot=slot: race(node, slot) for node in got for slot in range(4)])
    # Then
    assert {model for model, _ in got["north"]} <= {"north", "any"}
    assert {model for model, _ in got["south"]} <= {"south", "any"}
    taken = [task for _, task in itertools.chain(*got.values())]
    assert len(taken) == len(set(taken)) == 120
    with api.services.database.read() as connection:
        assert connection.execute(select(tasks.c.id).where(tasks.c.state == "queued")).all() == []
