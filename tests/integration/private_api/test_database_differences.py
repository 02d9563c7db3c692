"""What one database forgives and the other does not: every test here runs on both, and most race."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from private_api.store.idempotency import forget_older_than, remember
from private_api.store.tables import duties, idempotency, now_ms, tasks, workers
from private_api.upkeep import reap_once, sweep_once
from tests.integration.private_api.callers import problem, zip_of

MINUTE = 60_000


def at_once(*calls):
    """What the calls return, all made at the same time."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [call.result(60) for call in [threads.submit(call) for call in calls]]


def test_the_request_that_sent_a_task_is_named_in_the_task_and_to_its_worker(api):
    api.register()
    sent = api.submit(headers={"X-Request-Id": "edge-0123456789"}).json
    lease = api.claim()
    assert (sent["request_id"], lease["request_id"]) == ("edge-0123456789", "edge-0123456789")
    # And without one, or with one that is none, the one that this service made
    for headers in ({}, {"X-Request-Id": "no id"}):
        answer = api.submit(headers=headers)
        made = answer.headers["X-Request-Id"]
        assert (answer.json["request_id"], api.claim()["request_id"]) == (made, made)
        assert made != "no id"


def test_models_are_listed_in_the_order_of_bytes_page_by_page(api):
    # Given ids that people would sort otherwise
    ids = ["Zebra", "a-b", "a.b", "aB", "ab", "a_b", "B", "b", "10", "9", "-x", "_x"]
    for model in ids:
        api.register(model)
    # When
    seen, cursor = [], ""
    while cursor is not None:
        page = api.call("GET", f"/v1/models?limit=5&cursor={cursor}").json
        seen += [model["human_readable_id"] for model in page["items"]]
        cursor = page["next_cursor"]
    # Then
    assert seen == sorted(ids)


def test_a_task_sent_while_its_model_is_changed_is_never_refused(api):
    # Given somebody who makes one new version after the other
    api.register()

    def change():
        return [
            api.call("PATCH", "/v1/models/echo", json={"container_tag": f"echo:{number}"}).status_code
            for number in range(15)
        ]

    def send():
        return [api.submit().status_code for _ in range(15)]

    # When others send tasks
    changed, *sent = at_once(change, send, send, send)
    # Then
    assert changed == [200] * 15
    assert sent == [[202] * 15] * 3


def test_a_slot_that_asks_twice_at_its_first_moment_is_answered_twice(api):
    for number in range(10):
        answers = at_once(*[lambda slot=f"cpu-{number}": api.claim(slot=slot)] * 4)
        assert answers == [None] * 4
    with api.services.database.read() as connection:
        assert len(connection.execute(select(workers)).all()) == 10


def test_the_same_request_many_times_at_once_creates_one_task(api):
    api.register()
    body = zip_of(a="same")
    answers = at_once(*[lambda: api.submit(body=body, headers={"Idempotency-Key": "k"})] * 8)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(api.call("GET", "/v1/tasks").json["items"]) == 1
    assert len([blob for blob in api.blobs() if blob.startswith("inputs/")]) == 1


def test_a_model_registered_twice_at_once_exists_once(api):
    def register():
        body = {"human_readable_id": "m", "container_tag": "m:1"}
        return api.call("POST", "/v1/models", json=body).status_code

    assert sorted(at_once(*[register] * 6)) == [201] + [409] * 5


def test_a_retry_and_the_removal_of_its_first_task_never_lose_the_input(api):
    api.register()
    for _ in range(8):
        first = api.submit().json["id"]
        api.fail(api.claim(), "exit_nonzero", exit_code=1)
        retried, removed = at_once(
            lambda task=first: api.call("POST", f"/v1/tasks/{task}/retry"),
            lambda task=first: api.call("DELETE", f"/v1/tasks/{task}"),
        )
        assert removed.status_code == 204
        # Whoever is first decides.
        assert retried.status_code in {202, 404, 410}
        if retried.status_code == 202:
            lease = api.claim()
            assert api.about(lease, "input", "GET").status_code == 200
            api.fail(lease, "exit_nonzero", exit_code=1)


@pytest.mark.parametrize(
    "send",
    [
        lambda api: api.call("GET", "/v1/tasks?model=a%00b"),
        lambda api: api.call("POST", "/v1/keys", json={"name": "a\0b", "role": "user"}),
        lambda api: api.call(
            "POST", "/v1/models", json={"human_readable_id": "m", "container_tag": "m:1", "description": "\0"}
        ),
        lambda api: api.call(
            "POST",
            "/v1/tasks",
            data={"model_human_readable_id": "\0", "zip_file": (io.BytesIO(zip_of()), "z")},
        ),
    ],
)
def test_text_that_one_database_cannot_store_is_refused_on_both(api, send):
    assert send(api).status_code == 422


def test_a_worker_that_speaks_in_nul_is_understood(api):
    api.register()
    api.submit()
    lease = api.claim(slot="cpu\0-0")
    api.beat(lease, progress={"fraction": 0.5, "message": "a\0b"})
    api.about(lease, "logs?offset=0", data=b"bytes may be \0 anything \xff\n")
    api.fail(lease, "exit_nonzero", reason="it said \0", exit_code=-(2**40))
    task = api.task(lease["task_id"])
    assert (task["exit_code"], task["reason"]) == (-(2**40), "it said \N{REPLACEMENT CHARACTER}")
    assert api.call("GET", f"/v1/tasks/{lease['task_id']}/logs").data == b"bytes may be \0 anything \xff\n"


def test_a_log_of_many_pieces_is_read_whole_and_from_anywhere(api):
    api.register()
    api.submit()
    lease = api.claim()
    whole = b"".join(b"line %d\n" % number for number in range(100))
    for offset in range(0, len(whole), 17):
        api.about(lease, f"logs?offset={offset}", data=whole[offset : offset + 17])
    for offset in (0, 1, 16, 17, 300, len(whole) - 1, len(whole), len(whole) + 5):
        read = api.call("GET", f"/v1/tasks/{lease['task_id']}/logs?offset={offset}").data
        assert (offset, read) == (offset, whole[offset:])


def test_answers_are_forgotten_in_batches_and_only_when_they_are_old(api, monkeypatch):
    monkeypatch.setattr("private_api.store.idempotency._BATCH", 3)
    with api.services.database.write() as connection:
        for number in range(8):
            remember(connection, "o", f"old-{number}", "f", {})
        connection.execute(update(idempotency).values(created_at=now_ms() - 3 * 24 * 60 * MINUTE))
        remember(connection, "o", "new", "f", {})
        assert forget_older_than(connection, 48 * 60 * MINUTE) == 3
    sweep_once(api.services)
    with api.services.database.read() as connection:
        assert connection.execute(select(idempotency.c.key)).scalars().all() == ["new"]


def test_the_database_has_a_clock_of_its_own_in_milliseconds(api):
    with api.services.database.read() as connection:
        row = connection.execute(select(now_ms(), text("CURRENT_TIMESTAMP"))).one()
    assert abs(row[0] - _milliseconds(row[1])) < 2000


def _milliseconds(moment):
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return moment.timestamp() * 1000


# Filling PostgreSQL's disk would need a disk of its own.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_database_is_the_operators_problem_and_loses_nothing(api):
    # Given a database that may not grow any more
    engine = api.services.database.engine
    api.register()
    before = api.submit().json["id"]
    engine.dispose()

    def limit(connection, _record):
        connection.execute("PRAGMA max_page_count = 1")

    event.listen(engine, "connect", limit)
    # When
    for number in range(50):
        answer = api.call("POST", "/v1/keys", json={"name": f"{number:0128}", "role": "user"})
        if answer.status_code != 201:
            break
    # Then
    refused = problem(answer, "storage_full", 507)
    assert refused["retryable"]
    assert answer.headers["Retry-After"] == "60"
    assert api.task(before)["state"] == "queued"
    # When there is room again
    event.remove(engine, "connect", limit)
    engine.dispose()
    # Then
    assert api.submit().status_code == 202


def test_a_row_that_breaks_a_promise_of_the_schema_changes_nothing(api):
    # A task of a model that does not exist: both databases must hold the reference.
    api.register()
    api.submit()
    with api.services.database.read() as connection:
        row = dict(connection.execute(select(tasks)).one()._mapping)
    del row["seq"]
    with pytest.raises(IntegrityError), api.services.database.write() as connection:
        connection.execute(insert(tasks).values(**row | {"id": "f" * 32, "model_id": 999}))
    assert len(api.call("GET", "/v1/tasks").json["items"]) == 1


def test_reapers_that_begin_at_the_same_moment_do_not_trip_over_each_other(api):
    # Given as many processes as the operator likes, none of which has reaped before
    for _ in range(5):
        with api.services.database.write() as connection:
            connection.execute(delete(duties))
        # Then all of them come through
        assert at_once(*[lambda: reap_once(api.services)] * 4) == [None] * 4
