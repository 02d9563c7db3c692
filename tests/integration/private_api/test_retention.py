"""How long each kind of data is kept, who says so, and what the doors answer when it is gone."""

import dataclasses

import pytest
from sqlalchemy import select, update

from private_api.blobs.store import BlobStoreUnavailableError
from private_api.decisions.retention import DataKind
from private_api.store import retention
from private_api.store.tables import log_chunks, now_ms, tasks
from private_api.upkeep import purge_once, reap_once
from tests.integration.private_api.callers import problem

DAY = 86_400_000
KINDS = ("input", "output", "log")
PATHS = {"input": "input", "output": "output", "log": "logs"}


def ended(api, **fields):
    """The id of a task that has succeeded and has a log."""
    api.submit(**fields)
    lease = api.claim()
    api.about(lease, "logs?offset=0", data=b"hello\n")
    api.finish(lease)
    return lease["task_id"]


def let_expire(api, *kinds):
    with api.services.database.write() as connection:
        past = {f"{kind}_expires_at": now_ms() - 1 for kind in kinds}
        connection.execute(update(tasks).where(tasks.c.finished_at.is_not(None)).values(past))
    purge_once(api.services)


def kept_days(api, task):
    """For how many days each kind is kept, from the task's end on."""
    with api.services.database.read() as connection:
        row = connection.execute(select(tasks).where(tasks.c.id == task)).one()._mapping
    return {
        kind: None if (at := row[f"{kind}_expires_at"]) is None else round((at - row["finished_at"]) / DAY, 3)
        for kind in KINDS
    }


def configured(api, **settings):
    """The same service with other settings, over the same data."""
    services = dataclasses.replace(
        api.services, settings=dataclasses.replace(api.services.settings, **settings)
    )
    api.app.extensions["inferenceserver"] = services
    return dataclasses.replace(api, services=services)


@pytest.mark.parametrize("gone", KINDS)
def test_one_kind_past_its_time_is_gone_and_the_others_are_not(api, gone):
    # Given
    api.register()
    task = ended(api)
    # When
    let_expire(api, gone)
    # Then
    for kind in KINDS:
        answer = api.call("GET", f"/v1/tasks/{task}/{PATHS[kind]}")
        if kind == gone:
            assert problem(answer, f"{kind}_expired", 410)["task_id"] == task
        else:
            assert answer.status_code == 200
    document = api.task(task)
    assert {kind: document[kind]["expired"] for kind in KINDS} == {kind: kind == gone for kind in KINDS}
    assert document["data_expired"] is (gone == "output")
    assert [blob.split("/")[0] for blob in api.blobs()] == [
        f"{kind}s" for kind in ("input", "output") if kind != gone
    ]
    with api.services.database.read() as connection:
        assert len(connection.execute(select(log_chunks)).all()) == (0 if gone == "log" else 1)


def test_a_task_whose_input_is_gone_cannot_be_run_again(api):
    api.register()
    task = ended(api)
    let_expire(api, "input")
    problem(api.call("POST", f"/v1/tasks/{task}/retry"), "input_expired", 410)


def test_an_input_that_a_retry_needs_outlives_the_first_task(api):
    # Given a task run again, whose first run's data expires
    api.register()
    first = ended(api)
    second = api.call("POST", f"/v1/tasks/{first}/retry").json["id"]
    let_expire(api, *KINDS)
    # Then the second still has its input, whether it waits or runs
    problem(api.call("GET", f"/v1/tasks/{first}/input"), "input_expired", 410)
    assert api.call("GET", f"/v1/tasks/{second}/input").status_code == 200
    lease = api.claim()
    assert lease["task_id"] == second
    assert api.about(lease, "input", "GET").status_code == 200


def test_nothing_of_a_task_that_has_not_ended_expires(api):
    api.register()
    api = configured(api, retention_seconds=0.001)
    tasks_left = [api.submit().json["id"] for _ in range(2)]
    lease = api.claim()
    api.about(lease, "logs?offset=0", data=b"hello\n")
    purge_once(api.services)
    for task in tasks_left:
        document = api.task(task)
        assert (document["expires_at"], document["input"]["expires_at"]) == (None, None)
        assert api.call("GET", f"/v1/tasks/{task}/input").status_code == 200
    assert api.call("GET", f"/v1/tasks/{lease['task_id']}/logs").text == "hello\n"


@pytest.mark.parametrize(
    ("server", "fields", "days"),
    [
        ({}, {}, {"input": 30, "output": 30, "log": 30}),
        ({"output_retention_seconds": 86400.0}, {}, {"input": 30, "output": 1, "log": 30}),
        ({"log_retention_seconds": 0.0}, {}, {"input": 30, "output": 30, "log": None}),
        ({"retention_seconds": 0.0}, {}, {"input": None, "output": None, "log": None}),
        # A model's own word counts more, for its own kind only.
        (
            {"output_retention_seconds": 86400.0},
            {"output_retention_seconds": 172800, "input_retention_seconds": 43200},
            {"input": 0.5, "output": 2, "log": 30},
        ),
        ({}, {"log_retention_seconds": 0}, {"input": 30, "output": 30, "log": None}),
        (
            {"retention_seconds": 0.0},
            {"input_retention_seconds": 86.4},
            {"input": 0.001, "output": None, "log": None},
        ),
    ],
)
def test_the_model_says_how_long_and_where_it_does_not_the_server_does(api, server, fields, days):
    api = configured(api, **server)
    api.register(**fields)
    assert kept_days(api, ended(api)) == days


def test_however_a_task_ends_its_data_has_its_time(api):
    # Given a model that keeps outputs for a day, and a task that ended in each of the possible ways
    api.register(output_retention_seconds=86400)
    api = configured(api, queued_limit_seconds=60.0)
    ways = {"succeeded": ended(api)}
    ways["failed"] = api.submit().json["id"]
    api.fail(api.claim(), "exit_nonzero", exit_code=1)
    ways["canceled while queued"] = api.submit().json["id"]
    api.call("POST", f"/v1/tasks/{ways['canceled while queued']}/cancel")
    ways["canceled while running"] = api.submit().json["id"]
    api.fail(api.claim(), "canceled_by_user")
    ways["queued too long"] = api.submit().json["id"]
    with api.services.database.write() as connection:
        connection.execute(
            update(tasks).where(tasks.c.id == ways["queued too long"]).values(queued_at=now_ms() - 61_000)
        )
    reap_once(api.services)
    # Then each keeps what it has for as long
    for way, task in ways.items():
        assert (way, kept_days(api, task)) == (way, {"input": 30, "output": 1, "log": 30})
        assert api.task(task)["expires_at"], way


def test_a_models_times_can_be_changed_and_given_back_to_the_server(api):
    # Given
    assert api.register()["output_retention_seconds"] is None
    first = ended(api)
    # When
    changed = api.call("PATCH", "/v1/models/echo", json={"output_retention_seconds": 86400}).json
    # Then it holds for what ends from now on
    assert (changed["output_retention_seconds"], changed["input_retention_seconds"]) == (86400, None)
    assert [kept_days(api, task)["output"] for task in (first, ended(api))] == [30, 1]
    # And another change leaves it alone, until it is given back
    assert api.call("PATCH", "/v1/models/echo", json={"cpus": 1}).json["output_retention_seconds"] == 86400
    back = api.call("PATCH", "/v1/models/echo", json={"output_retention_seconds": None}).json
    assert back["output_retention_seconds"] is None
    assert kept_days(api, ended(api))["output"] == 30


@pytest.mark.parametrize("value", ["-1", '"soon"', "1e999", "1e12"])
def test_a_wrong_time_is_refused_by_its_name(api, value):
    body = f'{{"human_readable_id": "m", "container_tag": "m:1", "log_retention_seconds": {value}}}'
    answer = api.call("POST", "/v1/models", data=body, content_type="application/json")
    assert "log_retention_seconds" in problem(answer, "invalid_field", 422)["detail"]


def test_a_purge_takes_more_than_one_batch(api, monkeypatch):
    # Given more ended tasks than one transaction takes
    for kind in DataKind:
        monkeypatch.setitem(retention._BATCH, kind, 2)
    api.register()
    for _ in range(5):
        ended(api)
    # When
    let_expire(api, *KINDS)
    # Then nothing is left
    assert api.blobs() == []
    with api.services.database.read() as connection:
        assert connection.execute(select(log_chunks)).all() == []
        gone = connection.execute(select(tasks.c.log_purged_at, tasks.c.input_purged_at)).all()
    assert all(None not in row for row in gone)


def test_a_store_that_lists_no_unfinished_uploads_keeps_nothing_beyond_its_time(api, monkeypatch):
    # Some S3 stores know no such list, and some keys may not ask for it.
    api.register()
    task = ended(api)

    def refuse():
        raise BlobStoreUnavailableError("NotImplemented")

    monkeypatch.setattr(api.services.blobs, "sweep_unfinished", refuse)
    with pytest.raises(BlobStoreUnavailableError):
        let_expire(api, "output")
    problem(api.call("GET", f"/v1/tasks/{task}/output"), "output_expired", 410)
