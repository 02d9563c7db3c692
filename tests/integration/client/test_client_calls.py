"""The Python client against a server that answers as the native interface does, and one that breaks."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from inference_server_client import (
    AnswerError,
    ApiError,
    Client,
    InputError,
    IntegrityError,
    KeyRefusedError,
    LogReceived,
    NotFoundError,
    TaskCanceledError,
    TaskChanged,
    TaskFailedError,
    UnreachableError,
    WaitTimeoutError,
)
from native_api_records import KEY, Fault, StubTask, zip_of
from native_api_stub import NativeApiStub

BODY = zip_of({"in.txt": os.urandom(300_000)})


def test_run_carries_a_directory_there_and_the_results_back(
    client: Client, stub: NativeApiStub, pictures: Path
):
    task = client.run("echo", pictures, pictures.parent / "out")
    sent = zipfile.ZipFile(io.BytesIO(stub.only_task().input))
    assert sent.namelist() == ["b.txt", "deep/a.txt"]
    assert (pictures.parent / "out" / "out.txt").read_bytes() == b"done\n"
    assert task.succeeded


@pytest.mark.parametrize("kind", ["drop", "drop_after", "empty_200", "html_200", "502", "503"])
def test_a_submission_that_breaks_makes_one_task(client: Client, stub: NativeApiStub, kind: str):
    # given a connection that breaks, before or after the task is made, or something in between that answers
    stub.faults.append(Fault("POST /v1/tasks", kind, times=2))
    # when
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    # then one task exists, with the whole input
    assert stub.only_task().id == task.id
    assert stub.only_task().input == BODY
    keys = {request.headers["Idempotency-Key"] for request in stub.seen("POST", "/v1/tasks")}
    assert len(keys) == 1


def test_two_submissions_are_two_tasks(client: Client, stub: NativeApiStub):
    client.tasks.submit("echo", io.BytesIO(BODY))
    client.tasks.submit("echo", io.BytesIO(BODY))
    assert len(stub.tasks) == 2


def test_the_callers_own_idempotency_key_is_used(client: Client, stub: NativeApiStub):
    first = client.tasks.submit("echo", io.BytesIO(BODY), idempotency_key="tonight", priority=7)
    second = client.tasks.submit("echo", io.BytesIO(BODY), idempotency_key="tonight", priority=7)
    assert first.id == second.id
    assert stub.seen("POST", "/v1/tasks")[0].query == {"model_human_readable_id": "echo", "priority": "7"}


def test_a_seekable_body_has_a_length_and_a_pipe_is_sent_in_chunks(client: Client, stub: NativeApiStub):
    client.tasks.submit("echo", io.BytesIO(BODY))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb") as sink:
        thread = threading.Thread(target=lambda: (sink.write(b"PK" * 1000), sink.close()))
        thread.start()
        client.tasks.submit("echo", source)
        thread.join()
    with_length, in_chunks = stub.seen("POST", "/v1/tasks")
    assert with_length.headers["Content-Length"] == str(len(BODY))
    assert in_chunks.headers["Transfer-Encoding"] == "chunked"
    assert in_chunks.body == b"PK" * 1000


def test_a_refusal_before_the_body_is_through_is_heard(client: Client, stub: NativeApiStub):
    # given a server that refuses after the headers and closes
    stub.faults.append(Fault("POST /v1/tasks", "early", headers={"status": "413", "code": "too_large"}))
    # then the caller hears the refusal rather than of a broken pipe
    with pytest.raises(ApiError) as caught:
        client.tasks.submit("echo", io.BytesIO(os.urandom(200_000)))
    assert caught.value.code == "too_large"


def test_other_bytes_stored_than_sent_are_found_out(client: Client, stub: NativeApiStub):
    stub.on_submit = lambda task: None
    original = StubTask.document
    try:
        StubTask.document = lambda self: {**original(self), "input": {"size_bytes": 1, "sha256": "0" * 64}}  # type: ignore[method-assign]
        with pytest.raises(IntegrityError):
            client.tasks.submit("echo", io.BytesIO(BODY))
    finally:
        StubTask.document = original  # type: ignore[method-assign]


def test_an_empty_or_missing_file_is_not_sent(client: Client, stub: NativeApiStub, tmp_path: Path):
    with pytest.raises(InputError):
        client.tasks.submit("echo", io.BytesIO())
    with pytest.raises(InputError):
        client.tasks.submit("echo", tmp_path / "none.zip")
    assert not stub.requests


def test_a_problem_becomes_an_error_with_all_its_fields(client: Client, stub: NativeApiStub):
    problem = {"detail": "Not now.", "code": "storage_full", "retryable": False, "task_id": "t1"}
    stub.faults.append(Fault("GET /v1/models/echo", "507", body=problem, headers={"Retry-After": "3"}))
    with pytest.raises(ApiError) as caught:
        client.models.get("echo")
    error = caught.value
    assert (str(error), error.code, error.status, error.retryable) == ("Not now.", "storage_full", 507, False)
    assert (error.task_id, error.retry_after_seconds) == ("t1", 3.0)


def test_retry_after_is_respected(client: Client, stub: NativeApiStub):
    problem = {"detail": "Busy.", "code": "unavailable", "retryable": True}
    stub.faults.append(Fault("GET /v1/models/echo", "503", body=problem, headers={"Retry-After": "1"}))
    started = time.monotonic()
    client.models.get("echo")
    assert time.monotonic() - started >= 1.0


def test_retries_are_bounded(client: Client, stub: NativeApiStub):
    stub.faults.append(Fault("GET /v1/models/echo", "drop", times=100))
    with pytest.raises(UnreachableError):
        client.models.get("echo")
    assert stub.faults[0].times == 96


def test_an_empty_200_is_never_taken_for_an_answer(client: Client, stub: NativeApiStub):
    stub.faults.append(Fault("GET", "empty_200", times=100))
    with pytest.raises(AnswerError):
        client.models.get("echo")
    with pytest.raises(AnswerError):
        client.tasks.log_chunk("0" * 32)


def test_what_something_else_said_in_the_place_of_a_store_beside_the_server_is_fetched_anew(
    client: Client, stub: NativeApiStub, tmp_path: Path
):
    # given a store whose address begins as the server's does, and something before it that answers
    task = client.tasks.get(client.tasks.submit("echo", io.BytesIO(BODY)).id)
    stub.faults.append(Fault("GET .*/output", "307", headers={"Location": f"{stub.url}/store/key"}))
    stub.faults.append(Fault("GET /store/", "200"))
    # when
    client.tasks.download_output(task, tmp_path / "output.zip")
    # then
    assert (tmp_path / "output.zip").read_bytes() == stub.only_task().output


def test_a_redirect_is_not_followed_with_the_key(client: Client, stub: NativeApiStub):
    stub.faults.append(Fault("GET /v1/models/echo", "302", headers={"Location": "http://127.0.0.1:9/"}))
    with pytest.raises(ApiError, match="leads elsewhere"):
        client.models.get("echo")


def test_keys_are_refused_and_things_not_found(client: Client, stub: NativeApiStub):
    with Client(stub.url, "wrong") as stranger, pytest.raises(KeyRefusedError):
        stranger.models.get("echo")
    with pytest.raises(NotFoundError):
        client.tasks.get("f" * 32)
    with pytest.raises(NotFoundError):
        client.models.get("../../etc")


def test_a_key_in_the_address_is_used_and_the_path_kept(stub: NativeApiStub):
    with Client(stub.url.replace("http://", f"http://user:{KEY}@") + "/prefix/") as client:
        assert client.models.get("echo").image == "busybox:1"
        assert KEY not in client.url
    assert stub.requests[0].path == "/prefix/v1/models/echo"


def test_waiting_sits_out_an_outage(client: Client, stub: NativeApiStub):
    stub.on_submit = lambda task: None
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    stub.faults.append(Fault("GET /v1/tasks/", "drop", times=2))
    threading.Timer(0.1, lambda: stub.succeed(stub.only_task(), {"a": b"1"})).start()
    assert client.tasks.wait(task.id, timeout_seconds=30).state == "succeeded"


def test_waiting_ends_at_its_time_limit(client: Client, stub: NativeApiStub):
    stub.on_submit = lambda task: None
    stub.hold_answers = False
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    with pytest.raises(WaitTimeoutError):
        client.tasks.wait(task.id, timeout_seconds=0.2)
    # A server that does not hold its answers is not asked without pause either.
    assert len(stub.seen("GET", f"/v1/tasks/{task.id}")) <= 3


def finished(client: Client, stub: NativeApiStub, size: int = 700_000) -> tuple[str, bytes]:
    stub.on_submit = lambda task: stub.succeed(task, {"big.bin": os.urandom(size)})
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    output = stub.only_task().output
    assert output is not None
    return task.id, output


def test_a_download_goes_on_where_it_broke(client: Client, stub: NativeApiStub, tmp_path: Path):
    # given an output whose transfer is cut five times, more often than one call is tried
    task_id, output = finished(client, stub)
    stub.faults.append(Fault("GET .*/output", "cut", times=5, cut_at=100_000))
    # when
    client.tasks.download_output(client.tasks.get(task_id), tmp_path / "out.zip")
    # then every byte came once
    assert (tmp_path / "out.zip").read_bytes() == output
    ranges = [request.headers["Range"] for request in stub.seen("GET", f"/v1/tasks/{task_id}/output")]
    assert ranges == [None, *(f"bytes={n}00000-" for n in range(1, 6))]
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_a_download_goes_on_after_the_process_died(client: Client, stub: NativeApiStub, tmp_path: Path):
    task_id, output = finished(client, stub)
    digest = hashlib.sha256(output).hexdigest()
    (tmp_path / f".out.zip.{digest[:16]}.part").write_bytes(output[:1000])
    client.tasks.download_output(client.tasks.get(task_id), tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == output
    assert stub.requests[-1].headers["Range"] == "bytes=1000-"


def test_damaged_remains_are_fetched_anew(client: Client, stub: NativeApiStub, tmp_path: Path):
    task_id, output = finished(client, stub)
    digest = hashlib.sha256(output).hexdigest()
    (tmp_path / f".out.zip.{digest[:16]}.part").write_bytes(b"x" * 1000)
    client.tasks.download_output(client.tasks.get(task_id), tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == output


def test_wrong_bytes_are_not_kept(client: Client, stub: NativeApiStub, tmp_path: Path):
    task_id, _ = finished(client, stub)
    stub.faults.append(Fault("GET .*/output", "corrupt", times=100))
    with pytest.raises(IntegrityError):
        client.tasks.download_output(client.tasks.get(task_id), tmp_path / "out.zip")
    assert list(tmp_path.iterdir()) == []


def test_two_downloads_to_one_target_both_end_well(client: Client, stub: NativeApiStub, tmp_path: Path):
    # given a download that is half done
    task_id, output = finished(client, stub)
    task = client.tasks.get(task_id)
    target = tmp_path / "out.zip"
    begun: list[int] = []

    def start_another(received: int) -> None:
        begun.append(received)
        # when another one to the same target runs meanwhile
        if received and not any(begun[:-1]):
            client.tasks.download_output(task, target)
            assert target.read_bytes() == output

    client.tasks.download_output(task, target, on_progress=start_another)
    # then both end well, and nothing else is left.
    assert target.read_bytes() == output
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_more_bytes_than_recorded_are_not_kept(client: Client, stub: NativeApiStub, tmp_path: Path):
    task_id, output = finished(client, stub)
    task = client.tasks.get(task_id)
    stub.only_task().output = output + b"more"
    with pytest.raises(IntegrityError, match="nothing was kept"):
        client.tasks.download_output(task, tmp_path / "out.zip")
    assert list(tmp_path.iterdir()) == []


def test_tasks_without_output_raise_what_they_ended_as(client: Client, stub: NativeApiStub, tmp_path: Path):
    stub.on_submit = lambda task: stub.update(
        task, state="failed", reason_code="exit_nonzero", reason="The model exited with 3."
    )
    failed = client.tasks.wait(client.tasks.submit("echo", io.BytesIO(BODY)).id)
    with pytest.raises(TaskFailedError, match="exit_nonzero"):
        client.tasks.download_output(failed, tmp_path / "out.zip")
    stub.on_submit = lambda task: None
    running = client.tasks.submit("echo", io.BytesIO(BODY))
    with pytest.raises(ApiError, match="not finished"):
        client.tasks.download_output(running, tmp_path / "out.zip")
    canceled = client.tasks.cancel(running.id)
    with pytest.raises(TaskCanceledError):
        client.tasks.download_output(canceled, tmp_path / "out.zip")


def test_the_log_is_followed_without_gap_or_repetition(client: Client, stub: NativeApiStub):
    # given a log that grows while it is read over connections that break mid-way
    stub.on_submit = lambda task: stub.update(task, state="running", log=b"0123456789")
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    stub.faults += [Fault("GET .*/logs", "cut", cut_at=4), Fault("GET .*/logs", "drop")]
    threading.Timer(0.2, lambda: stub.succeed(stub.only_task(), {"a": b""}, log=b"abc")).start()
    # when / then
    assert b"".join(c.data for c in client.tasks.logs(task.id, follow=True)) == b"0123456789abc"
    assert b"".join(c.data for c in client.tasks.logs(task.id, offset=8)) == b"89abc"


def test_following_tells_log_and_changes_and_ends_with_the_end(client: Client, stub: NativeApiStub):
    stub.on_submit = lambda task: stub.update(task, state="running", log=b"one\n")
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    events = []
    for event in client.follow(task.id):
        events.append(event)
        # Log and changes come by threads of their own, in either order; the task ends after both began.
        both_began = {type(seen) for seen in events} == {LogReceived, TaskChanged}
        if both_began and stub.only_task().state == "running":
            stub.succeed(stub.only_task(), {"a": b""}, log=b"two\n")
    assert b"".join(e.chunk.data for e in events if isinstance(e, LogReceived)) == b"one\ntwo\n"
    assert [e.task.state for e in events if isinstance(e, TaskChanged)] == ["running", "succeeded"]
    assert isinstance(events[-1], TaskChanged)


def test_following_a_task_that_is_deleted_raises(client: Client, stub: NativeApiStub):
    stub.on_submit = lambda task: None
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    events = client.follow(task.id)
    next(events)
    client.tasks.delete(task.id)
    with pytest.raises(NotFoundError):
        list(events)


def test_deleting_twice_over_a_broken_connection_is_deleting(client: Client, stub: NativeApiStub):
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    stub.faults.append(Fault("DELETE", "drop_after"))
    client.tasks.delete(task.id)
    with pytest.raises(NotFoundError):
        client.tasks.delete(task.id)


def test_retry_makes_one_new_task(client: Client, stub: NativeApiStub):
    task = client.tasks.submit("echo", io.BytesIO(BODY))
    stub.faults.append(Fault("POST .*/retry", "drop_after"))
    again = client.tasks.retry(task.id)
    assert again.id != task.id
    assert len(stub.tasks) == 2


def test_lists_come_in_pages(client: Client):
    for _ in range(3):
        client.tasks.submit("echo", io.BytesIO(BODY))
    first = client.tasks.page(limit=2, state="succeeded")
    rest = client.tasks.page(limit=2, cursor=first.next_cursor)
    assert (len(first.items), len(rest.items), rest.next_cursor) == (2, 1, None)


def test_models_are_added_with_content_changed_and_removed(
    client: Client, stub: NativeApiStub, tmp_path: Path
):
    weights = tmp_path / "weights.zip"
    weights.write_bytes(zip_of({"w.bin": os.urandom(200_000)}))
    stub.faults.append(Fault("POST /v1/models", "drop_after"))
    added = client.models.add("digits", "digits:1", content=weights, use_gpu=True, description="Ziffern ✓")
    assert added.content is not None
    assert added.content.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert added.document["description"] == "Ziffern ✓"
    assert added.document["use_gpu"] == "true"
    changed = client.models.update("digits", image="digits:2", time_seconds=60.0)
    assert (changed.image, changed.document["time_seconds"]) == ("digits:2", 60.0)
    assert [model.id for model in client.models.page().items] == ["echo", "digits"]
    client.models.remove("digits")
    with pytest.raises(NotFoundError):
        client.models.get("digits")


def test_keys_are_made_listed_and_revoked(client: Client):
    key = client.keys.add("anna", role="user")
    assert (key.secret, key.id) == ("s3cret", "1")
    assert "s3cret" not in repr(key)
    assert [(k.name, k.secret) for k in client.keys.page().items] == [("anna", None)]
    client.keys.revoke(key.id)
    assert client.keys.page().items == ()
