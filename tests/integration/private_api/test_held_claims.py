"""Claims that wait: woken by what fits them, answered when nobody wants them any more, and free of charge."""

import threading
import time

import pytest
from sqlalchemy import event

from tests.integration.private_api.callers import Api, problem
from tests.rig.polling import eventually

CLAIM = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 30}


class Held:
    """A claim on a thread of its own."""

    def __init__(self, api, *, key=None, **changes):
        self.answer = None
        wanted = CLAIM | changes
        arguments = {"key": key or api.worker, "json": wanted}
        self._thread = threading.Thread(target=self._ask, args=(api, arguments), daemon=True)
        self._thread.start()
        # It waits once it has looked: from then on only others can end it.
        eventually(lambda: self.waits(api, wanted), 10, "the claim is held", every=0.01)

    def _ask(self, api, arguments):
        self.answer = api.call("POST", "/v1/leases", **arguments)

    @staticmethod
    def waits(api, wanted):
        names = (wanted["node"], wanted["slot"])
        waiters = list(api.services.lookout._waiters)
        return any((one.node, one.name) == names and one.slot is not None for one in waiters)

    def join(self, seconds=20):
        self._thread.join(seconds)
        assert self.answer is not None, "the claim is still held"
        return self.answer

    @property
    def is_held(self):
        return self.answer is None


def report_of(*slots, labels=None):
    return {
        "instance": "i",
        "machine": {"cpus": 8, "memory_bytes": 2**36, "architecture": "x86_64", "engine_version": "20"},
        "disk": {"total_bytes": 2**40, "free_bytes": 2**39, "has_room": True},
        "slots": [{"name": name, "kind": "cpu"} for name in slots],
        "gpus": [],
        "labels": labels or {},
        "images": [],
    }


def test_one_task_wakes_one_claim_and_it_is_the_one_that_fits(api, monkeypatch):
    # Given a claim of a key that is bound to another model, one that fits, and one more; all look when told
    monkeypatch.setattr("private_api.lookout._LOOK_SECONDS", 3600.0)
    api.register("lung")
    api.register("liver")
    bound = api.call("POST", "/v1/keys", json={"name": "b", "role": "worker", "models": ["liver"]}).json
    other = Held(api, key=bound["key"], node="a", slot="1")
    first = Held(api, node="b", slot="2")
    second = Held(api, node="c", slot="3")
    # When a task comes
    task = api.submit("lung").json["id"]
    # Then the first that fits has it, and the others wait on
    assert first.join().json["task_id"] == task
    assert other.is_held
    assert second.is_held
    mine = api.submit("liver").json["id"]
    assert other.join().json["task_id"] == mine
    for node, slot in (("c", "3"),):
        answer = api.call("POST", "/v1/leases/withdraw", key=api.worker, json={"node": node, "slot": slot})
        assert answer.json == {"withdrawn": True}
    assert second.join().status_code == 204


def test_a_burst_of_tasks_wakes_as_many_claims(api):
    api.register()
    held = [Held(api, slot=f"cpu-{number}") for number in range(6)]
    ids = {api.submit().json["id"] for _ in range(6)}
    assert {one.join().json["task_id"] for one in held} == ids


def test_what_another_process_queued_is_found_within_a_second_or_two(api):
    # Given a claim, and a submission of which this process is told nothing
    api.register()
    held = Held(api)
    api.services.lookout.ring = lambda: None
    task = api.submit().json["id"]
    assert held.join().json["task_id"] == task


def test_waiting_claims_ask_the_database_together(api):
    # Given many claims that wait
    api.register()
    held = [Held(api, slot=f"cpu-{number}") for number in range(20)]
    asked = []

    def note(*_arguments):
        asked.append(1)

    def asked_in(seconds):
        asked.clear()
        time.sleep(seconds)
        return len(asked)

    event.listen(api.services.database.engine, "before_cursor_execute", note)
    # When some seconds pass in which nothing happens, then they ask no more than one would
    # (The last to come may not have ended their own first look when those seconds begin.)
    eventually(lambda: asked_in(3) <= 12, 10, "twenty claims ask as one")
    event.remove(api.services.database.engine, "before_cursor_execute", note)
    for number in range(20):
        withdrawn = {"node": "n", "slot": f"cpu-{number}"}
        api.call("POST", "/v1/leases/withdraw", key=api.worker, json=withdrawn)
    assert {one.join().status_code for one in held} == {204}


def test_nobody_withdraws_another_keys_claim(api):
    api.register()
    held = Held(api)
    stranger = api.key_of("worker", "stranger")
    wanted = {"node": "n", "slot": "cpu-0"}
    assert api.call("POST", "/v1/leases/withdraw", key=stranger, json=wanted).json == {"withdrawn": False}
    assert held.is_held
    assert api.call("POST", "/v1/leases/withdraw", key=api.worker, json=wanted).json == {"withdrawn": True}
    held.join()


def test_a_claim_that_is_held_with_a_key_ends_when_that_is_revoked(api):
    made = api.call("POST", "/v1/keys", json={"name": "home", "role": "worker"}).json
    api.register()
    held = Held(api, key=made["key"])
    api.call("DELETE", f"/v1/keys/{made['id']}")
    problem(held.join(), "unauthenticated", 401)
    # And a task that comes is anybody's
    task = api.submit().json["id"]
    assert api.claim()["task_id"] == task


def test_a_drained_nodes_claim_ends_at_once(api):
    api.register()
    assert api.call("POST", "/v1/nodes/n/report", key=api.worker, json=report_of("cpu-0")).status_code == 200
    held = Held(api)
    assert api.call("POST", "/v1/nodes/n/drain").status_code == 200
    problem(held.join(), "node_draining", 409)


def test_a_claim_hears_that_its_node_has_something_new(api):
    # Given a task that asks for a label, and a node without it that waits
    api.register(node_labels={"site": "north"})
    api.call("POST", "/v1/nodes/n/report", key=api.worker, json=report_of("cpu-0"))
    task = api.submit().json["id"]
    held = Held(api)
    # When the node has it
    with_label = report_of("cpu-0", labels={"site": "north"})
    assert api.call("POST", "/v1/nodes/n/report", key=api.worker, json=with_label).status_code == 200
    assert held.join().json["task_id"] == task


@pytest.mark.parametrize("wait_seconds", [0.0, 0.3])
def test_a_claim_that_finds_nothing_ends_in_its_time(api: Api, wait_seconds):
    began = time.monotonic()
    assert api.claim(wait_seconds=wait_seconds) is None
    assert wait_seconds <= time.monotonic() - began < CLAIM["wait_seconds"]
    assert not api.services.lookout._waiters


def test_a_stop_ends_all_claims(api):
    held = [Held(api, slot=f"cpu-{number}") for number in range(3)]
    api.services.stopping.set()
    assert {one.join().status_code for one in held} == {204}


def test_whoever_takes_all_places_gives_way_to_others(api):
    # Given two places for claims, and a worker that has taken both
    api.register()
    api.services.claim_permits._value = 2
    greedy = api.call("POST", "/v1/keys", json={"name": "greedy", "role": "worker"}).json["key"]
    first = Held(api, key=greedy, slot="1")
    second = Held(api, key=greedy, slot="2")
    # When another worker comes, then there is a place for it
    honest = Held(api)
    assert first.join().status_code == 204
    assert second.is_held
    # And whoever is the greediest itself is asked to come back
    api.services.claim_permits._value = 0
    third = api.call("POST", "/v1/leases", key=greedy, json=CLAIM | {"slot": "3"})
    problem(third, "unavailable", 503)
    api.services.stopping.set()
    for one in (second, honest):
        one.join()
