"""What the services write while they serve: one request can be followed through all of them, no key can."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests

from tests.integration.monitoring.conftest import Watched
from tests.rig import remains
from tests.rig.api import Api
from tests.rig.polling import eventually
from tests.rig.processes import Service

Line = dict[str, Any]


def lines_of(service: Service, **wanted: Any) -> list[Line]:
    """The lines of a service's log that have all of this."""
    found = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if wanted.items() <= line.items()]


def test_one_request_can_be_followed_through_all_services(watched: Watched, admin: Api) -> None:
    # Given a task that was sent under an id of its sender's
    server = watched.server
    model = admin.register("sleeps-for-ever")
    task = admin.submit(model, **{"X-Request-Id": "follow-this-one-42"})
    admin.running(task)

    # Then its container says which request brought it
    (container,) = remains.model_containers(server.installation, task["id"])
    assert container.labels["org.inferenceserver.request"] == "follow-this-one-42"

    # When it is stopped by another request, and has ended
    admin.post(f"/v1/tasks/{task['id']}/cancel", headers={"X-Request-Id": "another-request"})
    admin.ended(task)

    # Then each service has said its part under the first one's id
    said = {"request_id": "follow-this-one-42", "task_id": task["id"]}
    eventually(
        lambda: lines_of(server.consumer, action="attempt_ended", **said), 10, "the attempt's last line"
    )
    (sent,) = lines_of(server.public_api, action="request_answered", **said)
    assert (sent["method"], sent["route"], sent["status"]) == ("POST", "/v1/tasks", 202)
    assert lines_of(server.private_api, action="task_accepted", model=model, **said)
    assert lines_of(server.private_api, action="task_claimed", attempt=1, node="node-1", **said)
    (ended,) = lines_of(server.private_api, action="attempt_ended", attempt=1, **said)
    assert (ended["outcome"], ended["reason_code"]) == ("canceled", "canceled_by_user")
    # Every line of the consumer between the first and the last of the attempt, from whatever thread
    slot = lines_of(server.private_api, action="task_claimed", **said)[0]["slot"]
    of_slot = lines_of(server.consumer, slot=slot, node="node-1")
    actions = [line.get("action") for line in of_slot]
    attempt = of_slot[actions.index("attempt_began") : actions.index("attempt_ended") + 1]
    mine = [line for line in attempt if line["task_id"] == task["id"]]
    assert {"attempt_began", "attempt_stopped", "attempt_ended"} <= {line["action"] for line in mine}
    assert all(said.items() <= line.items() and line["attempt"] == 1 for line in mine)


def test_each_request_has_one_line_with_what_an_operator_needs(watched: Watched, admin: Api) -> None:
    # When somebody asks for something
    answer = admin.get("/v1/models", params={"limit": "7"}, headers={"X-Request-Id": "one-line-of-mine"})
    assert answer.status_code == 200

    # Then there is one line for it
    service = watched.server.public_api
    (line,) = eventually(lambda: lines_of(service, request_id="one-line-of-mine"), 10, "the line")
    keys = admin.get("/v1/keys").json()["items"]
    assert line["key_id"] in {key["id"] for key in keys}
    assert "X-Key-Id" not in answer.headers
    assert line["duration_ms"] > 0
    assert line["bytes"] == len(answer.content)
    expected = {
        "service": "public_api", "action": "request_answered", "method": "GET", "route": "/v1/models",
        "status": 200, "client": "127.0.0.1",
    }  # fmt: skip
    assert expected.items() <= line.items()


def test_a_refused_request_has_its_line_too(watched: Watched) -> None:
    url = f"{watched.server.url}/v1/tasks"
    answer = requests.get(url, headers={"X-Request-Id": "refused-for-its-key"}, timeout=10)
    assert answer.status_code == 401

    (line,) = eventually(
        lambda: lines_of(watched.server.public_api, request_id="refused-for-its-key"), 10, "the line"
    )
    assert line["status"] == 401
    assert "key_id" not in line


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_that_find_all_well_leave_no_line(watched: Watched, path: str) -> None:
    server = watched.server
    for number in range(3):
        headers = {"X-Request-Id": f"probe-number-{number}"}
        assert requests.get(server.url + path, headers=headers, timeout=10).status_code == 200
    # A line of a later request is there, so theirs would be.
    requests.get(
        f"{server.url}/nothing", headers={"X-Request-Id": f"after{path.replace('/', '-')}"}, timeout=10
    )
    eventually(
        lambda: lines_of(server.public_api, request_id=f"after{path.replace('/', '-')}"), 10, "a later line"
    )
    assert not lines_of(server.public_api, route=path, status=200)


def test_no_key_reaches_a_log_wherever_it_was_put(watched: Watched, admin: Api) -> None:
    # Given keys: a right one, and wrong ones that look like nothing else
    server = watched.server
    right, wrong = server.caller("user").key or "", "wr0ng-key-that-looks-like-nothing-else"
    basic = base64.b64encode(f"user:{right}".encode()).decode()

    # When they are put wherever people put them, rightly and by mistake
    places: list[dict[str, Any]] = [
        {"headers": {"Authorization": f"Bearer {right}"}},
        {"headers": {"X-API-Key": right}},
        {"headers": {"Authorization": f"Basic {basic}"}},
        {"headers": {"Authorization": f"Bearer {wrong}"}},
        {"headers": {"Authorization": f"Nonsense {wrong}"}},
        {"headers": {"X-Request-Id": f"{wrong}!"}},
        {"headers": {"User-Agent": wrong, "Referer": f"http://x/{wrong}", "Cookie": f"key={wrong}"}},
        {"params": {"api_key": right}},
        {"params": {"unknown": wrong}},
        {"data": f'{{"key": "{wrong}"', "headers": {"Authorization": f"Bearer {right}"}},
    ]
    for place in places:
        for method, path in (
            ("GET", "/v1/tasks"),
            ("POST", "/v1/tasks"),
            ("POST", "/v1/keys"),
            ("GET", "/api/models/"),
        ):
            requests.request(method, server.url + path, timeout=10, **place)
    for path in (f"/v1/keys/{right}", f"/v1/tasks/{right}", f"/{right}", f"/api/tasks/{right}/"):
        for method in ("GET", "DELETE"):
            admin.call(method, path)
    requests.get(f"{server.url}/v1/models", headers={"X-Request-Id": "after-all-of-them"}, timeout=10)
    eventually(lambda: lines_of(server.public_api, request_id="after-all-of-them"), 10, "the last line")

    # Then no log has any of them, nor the keys with which the services speak to one another
    secrets = [right, wrong, basic, server.key("admin"), server.key("worker")]
    for service in server.services:
        text = service.log.read_text()
        assert text
        assert not [secret for secret in secrets if secret in text], service.name
