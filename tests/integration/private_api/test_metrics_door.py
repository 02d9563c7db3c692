"""What the private API shows of its tasks, and what it counts of their ends."""

import dataclasses
import shutil

import pytest
from sqlalchemy import event, update

from contracts.messages import SlotKind
from private_api.blobs.directory import DirectoryBlobStore
from private_api.scrape import Scrape as StateOfServices
from private_api.store.database import Database
from private_api.store.measures import LIVE_STATES, measure_live_tasks
from private_api.store.tables import tasks
from private_api.upkeep import reap_once
from tests.rig.scrapes import Scrape, parse

FINISHED = "inferenceserver_tasks_finished_total"


def scraped(api) -> Scrape:
    answer = api.app.test_client().get("/metrics")
    assert answer.status_code == 200
    return parse(answer.text)


def state_of(services) -> Scrape:
    """The state at this moment: nothing that was asked for a moment before is kept."""
    samples = [sample for metric in StateOfServices(services).collect() for sample in metric.samples]
    return Scrape("", tuple(samples))


def test_the_queue_is_shown_by_kind_with_the_age_of_its_oldest(api):
    # Given two tasks that wait, one since ten minutes, and one that a worker has
    api.register()
    ids = [api.submit().json["id"] for _ in range(3)]
    lease = api.claim()
    waiting = [task_id for task_id in ids if task_id != lease["task_id"]]
    with api.services.database.write() as connection:
        early = update(tasks).where(tasks.c.id == waiting[0]).values(queued_at=tasks.c.queued_at - 600_000)
        connection.execute(early)

    # When the state is looked at
    seen = state_of(api.services)

    # Then they are there
    assert seen.sum("inferenceserver_tasks", kind="cpu", state="queued") == 2
    assert seen.sum("inferenceserver_tasks", kind="cpu", state="starting") == 1
    assert seen.sum("inferenceserver_tasks", kind="gpu") == 0
    assert 600 <= seen.sum("inferenceserver_queue_oldest_age_seconds", kind="cpu") < 660
    assert seen.sum("inferenceserver_queue_oldest_age_seconds", kind="gpu") == 0
    assert seen.sum("inferenceserver_slots_heard", kind="cpu") == 1


def test_an_ended_task_is_counted_by_its_outcome_and_its_phases(api):
    before = scraped(api)
    api.register()
    api.submit()
    lease = api.claim()
    api.finish(lease)
    api.submit()
    api.fail(api.claim(), "exit_nonzero", exit_code=3)

    seen = scraped(api)
    assert seen.since(before, "inferenceserver_tasks_accepted_total", kind="cpu") == 2
    assert seen.since(before, "inferenceserver_tasks_claimed_total", kind="cpu") == 2
    assert seen.since(before, FINISHED, state="succeeded", reason_code="none") == 1
    assert seen.since(before, FINISHED, state="failed", reason_code="exit_nonzero") == 1
    assert seen.since(before, FINISHED) == 2
    phases = "inferenceserver_task_phase_duration_seconds"
    assert seen.since(before, f"{phases}_count", phase="queued") == 2
    assert seen.since(before, f"{phases}_count", phase="running") == 1
    assert seen.since(before, f"{phases}_sum", phase="running") == pytest.approx(0.1)


def test_a_word_that_is_said_again_is_counted_once(api):
    api.register()
    api.submit()
    lease = api.claim()
    before = scraped(api)
    body = api.finish(lease)

    # When the worker has not heard the answer and says it again
    again = {"output": api.task(lease["task_id"])["output"], "exit_code": 0, "durations": {"running": 0.1}}
    again["output"] = {name: again["output"][name] for name in ("size_bytes", "sha256")}
    assert again["output"]["size_bytes"] == len(body)
    assert api.about(lease, "complete", json=again).status_code == 200

    assert scraped(api).since(before, FINISHED) == 1


def test_an_attempt_that_is_run_again_is_no_end_and_a_lost_lease_is_counted(api):
    api.register()
    api.submit()
    before = scraped(api)

    # When one attempt is spoiled by the engine, and the next one's worker is lost
    api.fail(api.claim(), "engine_failed")
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(not_before=0))
    assert api.claim()
    reap_once(api.services)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(lease_expires_at=1))
    reap_once(api.services)

    # Then both went back to the queue, and nothing has ended
    seen = scraped(api)
    assert seen.since(before, "inferenceserver_attempts_requeued_total", reason_code="engine_failed") == 1
    assert seen.since(before, "inferenceserver_attempts_requeued_total", reason_code="worker_lost") == 1
    assert seen.since(before, "inferenceserver_leases_expired_total") == 1
    assert seen.since(before, FINISHED) == 0


def test_a_task_that_is_canceled_in_the_queue_ends_once(api):
    api.register()
    task_id = api.submit().json["id"]
    before = scraped(api)

    for _ in range(2):
        assert api.call("POST", f"/v1/tasks/{task_id}/cancel").status_code == 202

    seen = scraped(api)
    assert seen.since(before, FINISHED, state="canceled", reason_code="canceled_by_user") == 1
    assert seen.since(before, FINISHED) == 1


def test_a_database_that_is_away_is_shown_as_away_and_nothing_made_up(api, tmp_path):
    away = Database(f"sqlite:///{tmp_path}/nothing/there.sqlite")
    (tmp_path / "nothing").rmdir()

    seen = state_of(dataclasses.replace(api.services, database=away))

    assert seen.sum("inferenceserver_database_up") == 0
    assert not [sample for sample in seen.samples if sample.name == "inferenceserver_tasks"]
    assert seen.sum("inferenceserver_blob_store_up") == 1


def test_a_blob_store_that_is_away_is_shown_as_away(api, tmp_path):
    assert state_of(api.services).sum("inferenceserver_blob_store_up") == 1
    directory = tmp_path / "unplugged"
    store = DirectoryBlobStore(directory)
    shutil.rmtree(directory)

    seen = state_of(dataclasses.replace(api.services, blobs=store))
    assert seen.sum("inferenceserver_blob_store_up") == 0
    assert seen.sum("inferenceserver_database_up") == 1


def test_the_disk_is_shown_where_data_lies(api):
    seen = state_of(api.services)
    places = {"state"} | ({"blobs"} if api.services.settings.blob_store == "directory" else set())
    found = {s.labels["place"] for s in seen.samples if s.name == "inferenceserver_disk_free_bytes"}
    assert found == places
    disk = shutil.disk_usage(api.services.settings.key_directory)
    assert seen.sum("inferenceserver_disk_size_bytes", place="state") == disk.total
    assert 0 < seen.sum("inferenceserver_disk_free_bytes", place="state") < disk.total


def test_scraping_often_asks_the_database_seldom(api):
    statements = []
    event.listen(
        api.services.database.engine, "before_cursor_execute", lambda *words: statements.append(words[2])
    )
    for _ in range(5):
        scraped(api)

    asked = [statement for statement in statements if "tasks.state = 'queued'" in statement]
    # Once for the counts and once for the oldest, of each kind.
    assert len(asked) == 2 * len(SlotKind)


def test_counting_a_long_queue_finds_an_index(tmp_path):
    # SQLite takes a partial index only where the statement itself says the state, as a parameter does not.
    database = Database(f"sqlite:///{tmp_path}/db.sqlite")
    database.migrate()
    asked = []
    event.listen(database.engine, "before_cursor_execute", lambda *words: asked.append(words[2:4]))
    with database.read() as connection:
        measure_live_tasks(connection)
        plans = {
            statement: str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all())
            for statement, values in list(asked)
            if "FROM tasks" in statement
        }
    database.engine.dispose()

    assert len(plans) == 2 * len(LIVE_STATES) + 2
    for statement, plan in plans.items():
        assert "SCAN" not in plan, (statement, plan)
        of_queue = "INDEX tasks_queue" in plan or "INDEX tasks_waiting" in plan
        assert of_queue is ("= 'queued'" in statement), (statement, plan)


def test_connections_to_the_database_are_given_back(api):
    before = scraped(api)
    api.register()
    for _ in range(5):
        api.submit()

    seen = scraped(api)
    assert seen.since(before, "inferenceserver_database_connections_in_use") == 0
    assert seen.sum("inferenceserver_database_connections") >= 1


def test_an_answer_names_the_key_and_a_refusal_does_not(api):
    keys = api.call("GET", "/v1/keys")
    known = {key["id"] for key in keys.json["items"]}

    assert keys.headers["X-Key-Id"] in known
    assert "X-Key-Id" not in api.call("GET", "/v1/keys", key="wrong").headers
