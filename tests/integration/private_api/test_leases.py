import contextlib
import dataclasses
import hashlib
import io
import threading

import pytest
from sqlalchemy import select, update

from contracts.messages import BlobFacts
from private_api.http.downloads import CorruptBlobError
from private_api.store.models import find_model
from private_api.store.tables import now_ms, tasks, workers
from private_api.store.tasks import add_task
from private_api.upkeep import reap_once, sweep_once
from tests.integration.private_api.buckets import store_bytes
from tests.integration.private_api.callers import problem, zip_of


def expire_leases(api):
    reap_once(api.services)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(lease_expires_at=now_ms() - 1))


def let_back_off_pass(api):
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(not_before=0))


def test_nothing_to_do_is_204(api):
    assert api.claim() is None


def test_a_waiting_claim_is_woken_by_a_submission(api):
    api.register()
    leases = []
    waiting = threading.Thread(target=lambda: leases.append(api.claim(wait_seconds=30)))
    waiting.start()
    task = api.submit().json["id"]
    waiting.join(10)
    assert leases[0]["task_id"] == task


@pytest.mark.timeout(180)
def test_fifty_workers_racing_for_three_hundred_tasks_get_each_of_them_once(api):
    # Given
    api.register()
    facts = BlobFacts(size_bytes=1, sha256="ab" * 32)
    with api.services.database.write() as connection:
        model = find_model(connection, "echo")
        queued = [
            add_task(
                connection,
                owner_id="o",
                model=model,
                input_key=f"inputs/{number}",
                facts=facts,
                priority=0,
                request_id=None,
            )
            for number in range(300)
        ]
    ids = {task.id for task in queued}
    claimed = []

    def race(number):
        wanted = {"node": f"n-{number}", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 0}
        while (answer := api.call("POST", "/v1/leases", key=api.worker, json=wanted)).status_code != 204:
            # On a machine that is busy enough, one of so many may wait too long and is told to come again.
            assert answer.status_code in {200, 503}, answer.text
            if answer.status_code == 200:
                claimed.append(answer.json["task_id"])

    threads = [threading.Thread(target=race, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(150)
    # Then nobody got what another had, and nothing is left
    assert sorted(claimed) == sorted(ids)


def test_higher_priority_first_then_order_of_arrival(api):
    api.register()
    ids = [
        api.call(
            "POST", f"/v1/tasks?model_human_readable_id=echo&priority={priority}", data=zip_of(a="1")
        ).json["id"]
        for priority in (0, 0, 5, -1)
    ]
    assert [api.claim()["task_id"] for _ in range(4)] == [ids[2], ids[0], ids[1], ids[3]]


def test_a_user_may_stand_back_but_not_push_ahead(api):
    api.register()
    user = api.key_of("user")
    answer = api.call(
        "POST", "/v1/tasks?model_human_readable_id=echo&priority=9", data=zip_of(a="1"), key=user
    )
    assert answer.json["priority"] == 0


def test_a_gpu_task_never_goes_to_a_cpu_slot(api):
    api.register(use_gpu=True)
    task = api.submit().json["id"]
    assert api.claim(kinds=["cpu"]) is None
    assert api.task(task)["waiting_for"].startswith("a worker with a GPU slot")
    assert api.claim(kinds=["gpu"])["task_id"] == task


def test_a_lost_lease_puts_the_task_back_and_its_first_holder_is_refused(api, monkeypatch):
    monkeypatch.setattr("private_api.decisions.retries._BACK_OFF_SECONDS", (3600.0,))
    api.register()
    task = api.submit().json["id"]
    first = api.claim()
    api.about(first, "logs?offset=0", data=b"first attempt\n")
    expire_leases(api)
    reap_once(api.services)
    waiting = api.task(task)
    assert (waiting["state"], waiting["reason_code"]) == ("queued", "worker_lost")
    assert api.claim() is None, "the back-off has not passed"
    let_back_off_pass(api)
    second = api.claim()
    assert (second["attempt"], second["token"]) == (2, first["token"] + 1)
    problem(api.beat(first), "stale_lease", 409)
    problem(api.about(first, "output", "PUT", data=zip_of(a="late")), "stale_lease", 409)
    failure = {"reason_code": "exit_nonzero", "reason": "x", "exit_code": 1, "durations": {}}
    problem(api.about(first, "fail", json=failure), "stale_lease", 409)
    api.about(second, "logs?offset=0", data=b"second attempt\n")
    body = api.finish(second)
    assert api.call("GET", f"/v1/tasks/{task}/output").data == body
    log = api.call("GET", f"/v1/tasks/{task}/logs").text
    assert log.startswith("first attempt\n\n[attempt 1 ended: The worker stopped answering.")
    assert log.endswith("second attempt\n")
    assert api.task(task)["reason_code"] is None


def test_the_right_lease_with_another_token_is_stale(api):
    api.register()
    api.submit()
    lease = api.claim()
    problem(
        api.about(lease, "heartbeat", token=99, json={"phase": "running", "wait_seconds": 0}),
        "stale_lease",
        409,
    )


def test_a_late_upload_of_a_lost_lease_leaves_no_blob(api):
    api.register()
    api.submit()
    lease = api.claim()
    api.about(lease, "output", "PUT", data=zip_of(a="1"))
    before = api.blobs()
    expire_leases(api)
    reap_once(api.services)
    assert len(api.blobs()) == len(before) - 1


def test_attempts_are_used_up(api):
    api.register()
    task = api.submit().json["id"]
    for _ in range(5):
        let_back_off_pass(api)
        assert api.claim() is not None
        expire_leases(api)
        reap_once(api.services)
    ended = api.task(task)
    assert (ended["state"], ended["reason_code"], ended["attempt"]) == ("failed", "worker_lost", 5)


def test_a_drained_task_spends_no_attempt_and_is_free_at_once(api):
    api.register()
    api.submit()
    for _ in range(7):
        api.fail(api.claim(), "drained", "The worker is stopping.")
    assert api.claim()["attempt"] == 8


def test_a_lost_lease_of_a_canceled_task_ends_it_as_canceled(api):
    api.register()
    task = api.submit().json["id"]
    api.claim()
    api.call("POST", f"/v1/tasks/{task}/cancel")
    expire_leases(api)
    reap_once(api.services)
    assert api.task(task)["state"] == "canceled"


def test_after_a_gap_of_the_reaper_live_leases_are_granted_a_full_period(api):
    api.register()
    task = api.submit().json["id"]
    lease = api.claim()
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(lease_expires_at=now_ms() - 60_000))
    reap_once(api.services)
    assert api.task(task)["state"] == "starting"
    assert api.beat(lease).status_code == 200


def test_a_phase_beyond_its_limit_is_taken_back(api):
    api.register()
    task = api.submit().json["id"]
    api.claim()
    reap_once(api.services)
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(phase_deadline_at=now_ms() - 1))
    reap_once(api.services)
    assert api.task(task)["reason_code"] == "phase_timed_out"


def test_committing_twice_is_one_result(api):
    api.register()
    api.submit()
    lease = api.claim()
    stored = api.about(lease, "output", "PUT", data=zip_of(a="1")).json
    words = {"output": stored, "exit_code": 0, "durations": {}}
    assert [api.about(lease, "complete", json=words).status_code for _ in range(2)] == [200, 200]
    other = {**words, "output": {**stored, "sha256": "0" * 64}}
    problem(api.about(lease, "complete", json=other), "stale_lease", 409)


def test_what_was_not_uploaded_cannot_be_committed(api):
    api.register()
    api.submit()
    lease = api.claim()
    words = {"output": {"size_bytes": 1, "sha256": "0" * 64}, "exit_code": 0, "durations": {}}
    problem(api.about(lease, "complete", json=words), "checksum_mismatch", 422)
    api.about(lease, "output", "PUT", data=zip_of(a="1"))
    problem(api.about(lease, "complete", json=words), "checksum_mismatch", 422)


def test_uploading_again_replaces_the_first_upload(api):
    api.register()
    api.submit()
    lease = api.claim()
    api.about(lease, "output", "PUT", data=zip_of(a="1"))
    body = api.finish(lease, zip_of(a="2"))
    assert api.call("GET", f"/v1/tasks/{lease['task_id']}/output").data == body
    assert len([key for key in api.blobs() if key.startswith("outputs/")]) == 1


def test_the_image_is_pinned_once(api):
    api.register()
    for image_id in ("sha256:" + "a" * 64, "sha256:" + "b" * 64):
        api.submit()
        lease = api.claim()
        api.beat(lease, image={"image_id": image_id, "digest": None})
        api.finish(lease)
    assert api.call("GET", "/v1/models/echo").json["image_id"] == "sha256:" + "a" * 64
    assert api.task(lease["task_id"])["image_digest"] == "sha256:" + "b" * 64


def test_a_damaged_output_is_never_handed_out_whole(api):
    api.register()
    api.submit()
    lease = api.claim()
    body = api.finish(lease)
    key = next(key for key in api.blobs() if key.startswith("outputs/"))
    store_bytes(api.services.blobs, key, body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(CorruptBlobError):
        api.call("GET", f"/v1/tasks/{lease['task_id']}/output")


def test_the_last_progress_comes_with_the_last_word(api):
    api.register()
    api.submit()
    lease = api.claim()
    api.beat(lease, progress={"fraction": 0.4, "message": "12 of 30"})
    stored = api.about(lease, "output", "PUT", data=zip_of(a="1")).json
    last = {"fraction": 1.0, "message": "30 of 30"}
    api.about(lease, "complete", json={"output": stored, "exit_code": 0, "durations": {}, "progress": last})
    assert api.task(lease["task_id"])["progress"] == last


def test_an_error_after_the_commit_loses_neither_input_nor_output(api, monkeypatch):
    api.register()
    write = api.services.database.write

    @contextlib.contextmanager
    def committed_and_broken():
        with write() as connection:
            yield connection
        raise RuntimeError("the connection broke after the commit")

    monkeypatch.setattr(api.services.database, "write", committed_and_broken)
    assert api.submit().status_code == 500
    monkeypatch.undo()
    lease = api.claim()
    assert api.about(lease, "input", "GET").data == zip_of(a="hi")
    monkeypatch.setattr(api.services.database, "write", committed_and_broken)
    assert api.about(lease, "output", "PUT", data=zip_of(a="1")).status_code == 500
    monkeypatch.undo()
    body = zip_of(a="1")
    facts = {"size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert (
        api.about(lease, "complete", json={"output": facts, "exit_code": 0, "durations": {}}).status_code
        == 200
    )
    assert api.call("GET", f"/v1/tasks/{lease['task_id']}/output").data == body


def test_a_task_keeps_its_kind_when_its_model_changes(api):
    api.register()
    api.submit()
    api.call("PATCH", "/v1/models/echo", json={"use_gpu": True})
    assert api.claim(kinds=["cpu"])["use_gpu"] is False
    assert api.submit().json["kind"] == "gpu"


def test_the_better_of_two_kinds_comes_first(api):
    api.register("one")
    api.register("two", use_gpu=True)
    first, second = api.submit("two").json["id"], api.submit("one").json["id"]
    assert [api.claim(kinds=["cpu", "gpu"])["task_id"] for _ in range(2)] == [first, second]


def test_a_worker_does_not_win_time_by_going_in_circles(api):
    api.register()
    task = api.submit().json["id"]
    lease = api.claim()
    api.beat(lease, "running")
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(phase_deadline_at=now_ms() + 5000))
    api.beat(lease, "pulling")
    api.beat(lease, "running")
    with api.services.database.read() as connection:
        row = connection.execute(select(tasks.c.phase, tasks.c.phase_deadline_at - now_ms())).one()
    assert row[0] == "running"
    assert row[1] < 6000
    assert api.task(task)["state"] == "running"


def test_each_attempt_has_room_for_its_log(api):
    api.register(log_bytes=1024)
    task = api.submit().json["id"]
    first = api.claim()
    assert api.about(first, "logs?offset=0", data=b"x" * 2000).json == {"log_bytes": 1024}
    assert api.beat(first).json["log_bytes"] == 1024
    api.fail(first, "drained")
    second = api.claim()
    assert api.about(second, "logs?offset=0", data=b"second attempt").json == {"log_bytes": 14}
    assert "second attempt" in api.call("GET", f"/v1/tasks/{task}/logs").text


def test_a_slot_at_work_counts_as_a_worker(api):
    api.register()
    api.submit()
    lease = api.claim()
    waiting = api.submit().json["id"]
    with api.services.database.write() as connection:
        connection.execute(update(workers).values(heard_at=0))
    assert api.task(waiting)["waiting_for"] is not None
    api.beat(lease)
    assert api.task(waiting)["waiting_for"] is None


def test_a_task_that_waited_too_long_fails_but_not_for_the_time_it_ran(api, settings):
    services = dataclasses.replace(
        api.services, settings=dataclasses.replace(settings, queued_limit_seconds=60)
    )
    api.register()
    ids = [api.submit().json["id"] for _ in range(2)]
    lease = api.claim()
    with api.services.database.write() as connection:
        connection.execute(update(tasks).values(queued_at=now_ms() - 61_000, created_at=now_ms() - 61_000))
    api.fail(lease, "drained")
    reap_once(services)
    states = [(api.task(task)["state"], api.task(task)["reason_code"]) for task in ids]
    assert states == [("queued", "drained"), ("failed", "queued_too_long")]


def test_the_sweeper_takes_what_nothing_needs_and_nothing_else(api, monkeypatch):
    for weights in ("1", "2", "3"):
        data = {
            "human_readable_id": "m",
            "container_tag": "m:1",
            "zip_file": (io.BytesIO(zip_of(w=weights)), "m.zip"),
        }
        if weights == "1":
            api.call("POST", "/v1/models", data=data)
            bound = api.submit("m").json["id"]
        else:
            api.call("PATCH", "/v1/models/m", data={"zip_file": data["zip_file"]})
    store_bytes(api.services.blobs, "outputs/orphan", b"x")
    sweep_once(api.services)
    assert "outputs/orphan" in api.blobs(), "it may be an upload whose task is about to be committed"
    monkeypatch.setattr("private_api.upkeep._ORPHAN_SECONDS", -60)
    sweep_once(api.services)
    kept = api.blobs()
    assert len([key for key in kept if key.startswith("contents/")]) == 2, (
        "the present one, and the bound one"
    )
    assert len([key for key in kept if key.startswith("inputs/")]) == 1
    assert len(kept) == 3
    lease = api.claim()
    assert lease["task_id"] == bound
    assert api.about(lease, "content", "GET").data == zip_of(w="1")


def test_too_many_waiting_workers_are_asked_to_come_back(api):
    permits = [api.services.claim_permits.acquire(blocking=False) for _ in range(1024)]
    assert all(permits)
    wanted = {"node": "n", "slot": "s", "kinds": ["cpu"], "wait_seconds": 0}
    answer = api.call("POST", "/v1/leases", key=api.worker, json=wanted)
    problem(answer, "unavailable", 503)
    assert answer.headers["Retry-After"]
