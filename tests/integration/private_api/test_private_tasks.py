import hashlib
import io
import threading
import time

import pytest

from tests.integration.private_api.callers import problem, zip_of


def test_a_task_goes_from_queued_to_succeeded_and_hands_out_what_was_uploaded(api):
    api.register()
    answer = api.submit()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/tasks/{answer.json['id']}"
    assert answer.headers["Retry-After"] == "1"
    lease = api.claim()
    assert lease["task_id"] == answer.json["id"]
    assert api.task(lease["task_id"])["state"] == "starting"
    api.beat(lease, "running", progress={"fraction": 0.5, "message": "half"})
    running = api.task(lease["task_id"])
    assert (running["state"], running["progress"]) == ("running", {"fraction": 0.5, "message": "half"})
    body = api.finish(lease)
    task = api.task(lease["task_id"])
    assert (task["state"], task["terminal"], task["exit_code"], task["attempt"]) == ("succeeded", True, 0, 1)
    assert task["output"] == {
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "expires_at": task["expires_at"],
        "expired": False,
    }
    output = api.call("GET", f"/v1/tasks/{task['id']}/output")
    assert (output.data, output.headers["ETag"]) == (body, f'"{task["output"]["sha256"]}"')


def test_the_form_may_have_its_fields_before_or_after_the_file(api):
    api.register()
    for order in (("model_human_readable_id", "zip_file"), ("zip_file", "model_human_readable_id")):
        values = {"model_human_readable_id": "echo", "zip_file": (io.BytesIO(zip_of(a="1")), "task.zip")}
        answer = api.call("POST", "/v1/tasks", data={name: values[name] for name in order})
        assert answer.status_code == 202, answer.text
        assert answer.json["input"]["size_bytes"] == len(zip_of(a="1"))


def test_plain_curl_dash_t_sends_a_put(api):
    api.register()
    answer = api.call("PUT", "/v1/tasks?model_human_readable_id=echo", data=zip_of(a="1"))
    assert answer.status_code == 202


def test_the_input_can_be_fetched_back_by_its_owner_and_its_worker(api):
    api.register()
    body = zip_of(a="x" * 1000)
    task = api.submit(body=body).json
    assert api.call("GET", f"/v1/tasks/{task['id']}/input").data == body
    assert api.about(api.claim(), "input", "GET").data == body


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [("bytes=0-9", 206, slice(0, 10)), ("bytes=5-", 206, slice(5, None)), ("bytes=-4", 206, slice(-4, None))],
)
def test_output_comes_in_ranges(api, header, status, part):
    api.register()
    api.submit()
    lease = api.claim()
    body = api.finish(lease)
    answer = api.call("GET", f"/v1/tasks/{lease['task_id']}/output", headers={"Range": header})
    assert (answer.status_code, answer.data) == (status, body[part])


def test_a_range_outside_is_refused_and_an_unchanged_output_is_not_sent_again(api):
    api.register()
    api.submit()
    lease = api.claim()
    api.finish(lease)
    path = f"/v1/tasks/{lease['task_id']}/output"
    problem(api.call("GET", path, headers={"Range": "bytes=99999-"}), "range_not_satisfiable", 416)
    etag = api.call("GET", path).headers["ETag"]
    for ignored in ("bytes=0-1,3-4", "lines=1-2", "bytes=x"):
        assert api.call("GET", path, headers={"Range": ignored}).status_code == 200
    assert api.call("GET", path, headers={"If-None-Match": etag}).status_code == 304
    head = api.call("HEAD", path)
    assert (head.status_code, head.data) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0


def test_an_output_that_is_not_ready_says_so_and_when_to_ask_again(api):
    api.register()
    task = api.submit().json
    answer = api.call("GET", f"/v1/tasks/{task['id']}/output")
    assert problem(answer, "task_not_finished", 409)["retryable"] is True
    assert answer.headers["Retry-After"] == "1"


def test_a_failed_task_says_why_there_is_no_output(api):
    api.register()
    task = api.submit().json
    api.fail(api.claim(), "exit_nonzero", "The model exited with 3.", 3)
    found = api.task(task["id"])
    assert (found["state"], found["reason_code"], found["exit_code"]) == ("failed", "exit_nonzero", 3)
    document = problem(api.call("GET", f"/v1/tasks/{task['id']}/output"), "task_failed", 409)
    assert "exited with 3" in document["detail"]
    assert document["task_id"] == task["id"]


def test_prefer_wait_holds_the_answer_until_the_task_has_ended(api):
    api.register()
    worker = threading.Thread(target=lambda: api.finish(api.claim(wait_seconds=10)))
    worker.start()
    started = time.monotonic()
    answer = api.submit(headers={"Prefer": "wait=30"})
    worker.join(10)
    assert (answer.status_code, answer.json["state"]) == (200, "succeeded")
    assert time.monotonic() - started < 25


def test_prefer_wait_with_accept_zip_answers_with_the_output_itself(api):
    api.register()
    done = []
    worker = threading.Thread(target=lambda: done.append(api.finish(api.claim(wait_seconds=10))))
    worker.start()
    answer = api.submit(headers={"Prefer": "wait=30", "Accept": "application/zip"})
    worker.join(10)
    assert (answer.status_code, answer.data) == (200, done[0])
    assert answer.headers["Content-Location"].endswith("/output")


def test_a_wait_that_is_over_answers_202(api):
    api.register()
    answer = api.submit(headers={"Prefer": "wait=0.1"})
    assert (answer.status_code, answer.json["state"]) == (202, "queued")
    assert answer.json["waiting_for"].startswith("a worker with a CPU slot")
    assert answer.json["queue_position"] == 0


def test_a_queued_task_is_canceled_at_once_and_a_running_one_through_its_worker(api):
    api.register()
    queued, running = api.submit().json, None
    assert api.call("POST", f"/v1/tasks/{queued['id']}/cancel").json["state"] == "canceled"
    assert api.claim() is None
    running = api.submit().json
    lease = api.claim()
    answer = api.call("POST", f"/v1/tasks/{running['id']}/cancel")
    assert (answer.status_code, answer.json["cancel_requested"]) == (202, True)
    assert api.beat(lease).json["cancel_requested"] is True
    api.fail(lease, "canceled_by_user")
    assert api.task(running["id"])["state"] == "canceled"
    assert api.call("POST", f"/v1/tasks/{running['id']}/cancel").status_code == 202


def test_a_heartbeat_returns_at_once_when_a_cancel_is_requested(api):
    api.register()
    task = api.submit().json
    lease = api.claim()
    answers = []
    beat = threading.Thread(target=lambda: answers.append(api.beat(lease, wait_seconds=30).json))
    beat.start()
    api.call("POST", f"/v1/tasks/{task['id']}/cancel")
    beat.join(10)
    assert answers == [{"cancel_requested": True, "log_bytes": 0}]


def test_an_ended_task_cannot_be_canceled(api):
    api.register()
    api.submit()
    lease = api.claim()
    api.finish(lease)
    problem(api.call("POST", f"/v1/tasks/{lease['task_id']}/cancel"), "task_finished", 409)


def test_a_retry_runs_the_same_input_under_a_new_id_and_outlives_the_first(api):
    api.register()
    task = api.submit().json
    problem(api.call("POST", f"/v1/tasks/{task['id']}/retry"), "task_not_finished", 409)
    api.fail(api.claim(), "exit_nonzero")
    again = api.call("POST", f"/v1/tasks/{task['id']}/retry")
    assert (again.status_code, again.json["state"]) == (202, "queued")
    assert again.json["id"] != task["id"]
    assert api.call("DELETE", f"/v1/tasks/{task['id']}").status_code == 204
    assert api.about(api.claim(), "input", "GET").data == zip_of(a="hi")


def test_deleting_a_task_leaves_nothing_of_it_and_stops_its_worker(api):
    api.register()
    task = api.submit().json
    lease = api.claim()
    api.about(lease, "logs?offset=0", data=b"line\n")
    api.about(lease, "output", "PUT", data=zip_of(a="1"))
    assert api.call("DELETE", f"/v1/tasks/{task['id']}").status_code == 204
    problem(api.beat(lease), "stale_lease", 409)
    problem(api.call("GET", f"/v1/tasks/{task['id']}"), "task_not_found", 404)
    assert api.blobs() == []


def test_tasks_are_listed_newest_first_page_by_page_and_by_state(api):
    api.register()
    ids = [api.submit().json["id"] for _ in range(5)]
    first = api.call("GET", "/v1/tasks?limit=3").json
    second = api.call("GET", f"/v1/tasks?limit=3&cursor={first['next_cursor']}").json
    assert [task["id"] for task in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    api.finish(api.claim())
    assert [task["id"] for task in api.call("GET", "/v1/tasks?state=succeeded").json["items"]] == ids[:1]
    assert api.call("GET", "/v1/tasks?model=other").json["items"] == []
    assert api.call("GET", "/v1/tasks?created_before=2000-01-01T00:00:00Z").json["items"] == []


def test_nobody_sees_anothers_task(api):
    api.register()
    one, other = api.key_of("user", "one"), api.key_of("user", "other")
    task = api.submit(key=one).json["id"]
    for method, path in [
        ("GET", ""), ("GET", "/input"), ("GET", "/output"), ("GET", "/logs"),
        ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""),
    ]:  # fmt: skip
        problem(api.call(method, f"/v1/tasks/{task}{path}", key=other), "task_not_found", 404)
    assert api.call("GET", "/v1/tasks", key=other).json["items"] == []
    assert [item["id"] for item in api.call("GET", "/v1/tasks", key=one).json["items"]] == [task]
    assert api.call("GET", f"/v1/tasks/{task}").status_code == 200


def test_a_log_is_read_by_offset_and_followed_until_the_end(api):
    api.register()
    task = api.submit().json["id"]
    lease = api.claim()
    assert api.about(lease, "logs?offset=0", data=b"one\n").json == {"log_bytes": 4}
    assert api.about(lease, "logs?offset=0", data=b"one\ntwo\n").json == {"log_bytes": 8}
    answer = api.call("GET", f"/v1/tasks/{task}/logs?offset=2")
    assert (answer.data, answer.headers["X-Next-Offset"]) == (b"e\ntwo\n", "8")
    assert answer.headers["X-Log-Complete"] == "false"
    heard = []
    follower = threading.Thread(
        target=lambda: heard.append(api.call("GET", f"/v1/tasks/{task}/logs?offset=8&wait=30"))
    )
    follower.start()
    api.about(lease, "logs?offset=8", data=b"three\n")
    follower.join(10)
    assert heard[0].data == b"three\n"
    api.finish(lease)
    assert api.call("GET", f"/v1/tasks/{task}/logs?offset=14&wait=30").headers["X-Log-Complete"] == "true"


def test_a_log_past_its_limit_is_cut_with_a_note(api):
    api.register(log_bytes=1024)
    task = api.submit().json["id"]
    lease = api.claim()
    assert api.about(lease, "logs?offset=0", data=b"x" * 3000).json == {"log_bytes": 1024}
    assert api.about(lease, "logs?offset=3000", data=b"x" * 10).json["log_bytes"] < 3000
    log = api.call("GET", f"/v1/tasks/{task}/logs").data
    assert log.startswith(b"x" * 1024 + b"\n[the log's limit is reached")
