"""How tasks in line are counted for their announcements, on each database."""

import pytest

from contracts.messages import SlotKind
from private_api.store.queues import count_due, first_due, take_turn


@pytest.fixture
def store(api):
    api.register()
    api.register("big", use_gpu=True)
    return api.services.database


def counts(store):
    with store.read() as connection:
        return [count_due(connection, kind) for kind in SlotKind]


def test_each_kind_is_counted_by_itself(api, store):
    for model in ("echo", "echo", "big"):
        api.submit(model)
    assert counts(store) == [2, 1]


def test_only_what_a_claim_could_have_is_counted(api, store, monkeypatch):
    # Given a task that runs, and one that is to run again later
    monkeypatch.setattr("private_api.decisions.retries._BACK_OFF_SECONDS", (3600.0,))
    for _ in range(3):
        api.submit()
    api.claim()
    api.fail(api.claim(slot="cpu-1"), "worker_lost")
    assert counts(store) == [1, 0]


def test_first_in_line_are_those_whom_claims_take_first(api, store):
    ids = [api.submit().json["id"] for _ in range(3)]
    body = api.call("GET", f"/v1/tasks/{ids[0]}/input").data
    urgent = api.call(
        "POST",
        "/v1/tasks?model_human_readable_id=echo&priority=1",
        data=body,
        content_type="application/zip",
    ).json["id"]
    with store.read() as connection:
        assert first_due(connection, SlotKind.CPU, 3) == [urgent, *ids[:2]]
    assert [api.claim()["task_id"] for _ in range(3)] == [urgent, *ids[:2]]


def test_a_turn_is_taken_by_one_process_at_a_time(api, store):
    def turn(gap_seconds):
        with store.write() as connection:
            return take_turn(connection, "a duty", gap_seconds)

    assert [turn(60), turn(60), turn(0), turn(60)] == [True, False, True, False]
