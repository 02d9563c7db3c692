import io

import pytest
from urllib3.filepost import encode_multipart_formdata

from tests.integration.private_api.callers import problem, zip_of


def test_an_unknown_model_is_refused_and_nothing_is_kept(api):
    problem(api.submit("nothing"), "model_not_found", 404)
    assert api.blobs() == []


@pytest.mark.parametrize(
    "fields", [{}, {"model_human_readable_id": ""}, {"model_human_readable_id": "echo", "colour": "red"}]
)
def test_missing_or_unknown_fields_are_named(api, fields):
    api.register()
    answer = api.call("POST", "/v1/tasks", data={**fields, "zip_file": (io.BytesIO(zip_of(a="1")), "t.zip")})
    assert answer.status_code in {404, 422}
    assert answer.content_type == "application/problem+json"
    assert api.blobs() == []


@pytest.mark.parametrize("priority", ["high", "1.5", "99999999999999999999"])
def test_a_wrong_priority_is_refused(api, priority):
    api.register()
    path = f"/v1/tasks?model_human_readable_id=echo&priority={priority}"
    assert "priority" in problem(api.call("POST", path, data=zip_of(a="1")), "invalid_field", 422)["detail"]


def test_a_missing_or_empty_file_says_how_to_send_one(api):
    api.register()
    problem(api.call("POST", "/v1/tasks?model_human_readable_id=echo"), "missing_file", 422)
    form = {"model_human_readable_id": "echo"}
    lone_field = (
        b'--b\r\nContent-Disposition: form-data; name="model_human_readable_id"\r\n\r\necho\r\n--b--\r\n'
    )
    answer = api.call("POST", "/v1/tasks", data=lone_field, content_type="multipart/form-data; boundary=b")
    problem(answer, "missing_file", 422)
    body, content_type = encode_multipart_formdata({**form, "zip_file": ("t.zip", b"")})
    answer = api.call("POST", "/v1/tasks", data=body, content_type=content_type)
    problem(answer, "missing_file", 422)
    assert api.blobs() == []


@pytest.mark.parametrize("body", [b"hello", b"PK\x03\x04" + b"x" * 100, zip_of(a="1")[:-5]])
def test_what_is_no_zip_is_refused(api, body):
    api.register()
    problem(api.submit(body=body), "input_invalid", 422)
    assert api.blobs() == []


def test_an_unsafe_name_inside_the_zip_is_named(api):
    api.register()
    document = problem(api.submit(body=zip_of(**{"../evil": "x"})), "input_invalid", 422)
    assert "../evil" in document["detail"]


def test_too_many_entries_are_refused(api):
    api.register()
    problem(api.submit(body=zip_of(**{f"f{n}": "x" for n in range(101)})), "input_invalid", 422)


def test_too_large_a_body_is_refused_with_and_without_a_form(api):
    api.register()
    body = b"x" * 300_001
    problem(api.submit(body=body), "too_large", 413)
    form = {"model_human_readable_id": "echo", "zip_file": (io.BytesIO(body), "t.zip")}
    problem(api.call("POST", "/v1/tasks", data=form), "too_large", 413)
    assert api.blobs() == []


def test_a_broken_form_is_refused(api):
    api.register()
    for content_type, body in [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary here"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="zip_file"\r\n\r\nabc',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: " + b"y" * 10_000 + b"\r\n\r\n--b--"),
    ]:
        answer = api.call("POST", "/v1/tasks", data=body, content_type=content_type)
        assert answer.status_code in {400, 413, 422}, answer.text
        assert answer.content_type == "application/problem+json"
    assert api.blobs() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[" * 10_000,
        b'{"name": NaN}',
        b'{"name": "\\ud800", "role": "user"}',
        b"\xff\xfe",
        b"null",
        b"[]",
    ],
)
def test_bad_json_is_named_as_such(api, body):
    answer = api.call("POST", "/v1/keys", data=body, content_type="application/json")
    problem(answer, "invalid_json", 400)


def test_json_must_be_called_json(api):
    answer = api.call("POST", "/v1/keys", data=b"{}", content_type="text/plain")
    problem(answer, "unsupported_media_type", 415)


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1",
        "limit=0",
        "limit=1000000000",
        "limit=x",
        "cursor=x",
        "state=dancing",
        "created_after=yesterday",
        "colour=red",
    ],
)
def test_a_wrong_query_names_its_parameter(api, query):
    document = problem(api.call("GET", f"/v1/tasks?{query}"), "invalid_field", 422)
    assert query.partition("=")[0] in document["detail"]


@pytest.mark.parametrize(
    "task_id", ["x", "..%2f..%2fetc", "%00", "a" * 300, "'; DROP TABLE tasks; --", "0" * 32]
)
def test_a_strange_task_id_is_a_task_that_does_not_exist(api, task_id):
    answer = api.call("GET", f"/v1/tasks/{task_id}")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("value", ["-1", "x", "nan"])
def test_a_wrong_wait_is_refused(api, value):
    api.register()
    problem(api.submit(headers={"Prefer": f"wait={value}"}), "invalid_field", 422)


@pytest.mark.parametrize("query", ["offset=-1", "offset=x", "wait=-1", "offset=9999999999999999999"])
def test_a_wrong_log_query_is_refused(api, query):
    api.register()
    task = api.submit().json["id"]
    problem(api.call("GET", f"/v1/tasks/{task}/logs?{query}"), "invalid_field", 422)


def test_no_route_and_no_method_are_problems_too(api):
    problem(api.call("GET", "/nowhere"), "not_found", 404)
    answer = api.call("PATCH", "/v1/tasks")
    problem(answer, "method_not_allowed", 405)
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("token", ["", "x", "-1"])
def test_a_lease_token_must_be_a_number(api, token):
    answer = api.call(
        "POST",
        "/v1/leases/x/heartbeat",
        key=api.worker,
        json={"phase": "running", "wait_seconds": 0},
        headers={"Lease-Token": token},
    )
    problem(answer, "invalid_field", 422)


@pytest.mark.parametrize(
    "changed", [{"node": None}, {"kinds": []}, {"kinds": ["tpu"]}, {"wait_seconds": -1}, {"slot": 7}]
)
def test_a_wrong_claim_is_refused(api, changed):
    body = {"node": "n", "slot": "s", "kinds": ["cpu"], "wait_seconds": 0, **changed}
    problem(api.call("POST", "/v1/leases", key=api.worker, json=body), "invalid_field", 422)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_disk_is_said_clearly_and_keeps_nothing(api, monkeypatch):
    api.register()
    monkeypatch.setattr(
        "private_api.blobs.directory.shutil.disk_usage", lambda _path: type("U", (), {"free": -1})()
    )
    answer = api.submit()
    problem(answer, "storage_full", 507)
    assert answer.headers["Retry-After"]


def test_unknown_fields_are_ignored_where_the_caller_asks_for_it(api):
    api.register()
    form = {"model_human_readable_id": "echo", "relative_zip_file_path": "x"}

    def send(path):
        return api.call("POST", path, data={**form, "zip_file": (io.BytesIO(zip_of(a="1")), "t.zip")})

    problem(send("/v1/tasks"), "invalid_field", 422)
    assert send("/v1/tasks?ignore_unknown=true").status_code == 202


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "1700000000", "2026-01-01T00:00:00"],
)
def test_a_moment_outside_the_calendar_or_without_a_zone_is_refused(api, moment):
    document = problem(api.call("GET", f"/v1/tasks?created_after={moment}"), "invalid_field", 422)
    assert "created_after" in document["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/a%00b", 404),
        ("DELETE", "/v1/keys/a%00", 404),
        ("POST", "/v1/tasks?model_human_readable_id=a%00", 422),
    ],
)
def test_nul_is_refused_before_any_database_sees_it(api, method, path, status):
    assert api.call(method, path).status_code == status


@pytest.mark.parametrize(
    "word", ['"wait_seconds": 1e999', '"wait_seconds": ' + "1" + "0" * 400, '"wait_seconds": -1e300']
)
def test_a_number_that_is_none_is_refused_from_workers_too(api, word):
    api.register()
    api.submit()
    lease = api.claim()
    answer = api.about(
        lease, "heartbeat", data=f'{{"phase": "running", {word}}}', content_type="application/json"
    )
    problem(answer, "invalid_field", 422)


def test_a_models_last_line_with_nul_ends_its_attempt_all_the_same(api):
    api.register()
    task = api.submit().json["id"]
    api.fail(api.claim(), "exit_nonzero", "It said \x00.")
    assert api.task(task)["reason"] == "It said \N{REPLACEMENT CHARACTER}."


def test_options_are_not_answered_with_a_page(api):
    problem(api.call("OPTIONS", "/v1/tasks"), "method_not_allowed", 405)
