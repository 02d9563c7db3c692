"""The private API announces: every task once, whatever becomes of the broker, and no request waits for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.announcements import DEAD_LETTER_QUEUE, decode
from tests.integration.broker.announcing_api import announcer, private_api, wait_for_broker
from tests.integration.private_api.callers import Api
from tests.rig.brokers import TestBroker
from tests.rig.polling import eventually


@pytest.fixture
def api(tmp_path: Path, broker: TestBroker) -> Iterator[Api]:
    with private_api(tmp_path, broker.url) as api:
        wait_for_broker(api)
        api.register("echo")
        yield api


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody catches up but the test itself; for ``usefixtures``, which comes before ``api``."""
    monkeypatch.setattr("private_api.announcing.announcer.CATCH_UP_SECONDS", 3600.0)
    monkeypatch.setattr("private_api.announcing.announcer._SETTLE_SECONDS", 3600.0)


def submit(api: Api, count: int = 1, model: str = "echo") -> list[str]:
    answers = [api.submit(model) for _ in range(count)]
    assert {answer.status_code for answer in answers} == {202}
    return [answer.json["id"] for answer in answers]


def test_the_private_api_declares_the_queues(api: Api, broker: TestBroker) -> None:
    text = broker.part.exec(
        ["rabbitmqctl", "-q", "-p", broker.name, "list_queues", "name", "type", "durable", "arguments"]
    )
    queues = {line.split("\t")[0]: line.split("\t")[1:] for line in text.splitlines() if "tasks." in line}
    assert {name: facts[:2] for name, facts in queues.items()} == {
        "tasks.cpu": ["quorum", "true"],
        "tasks.gpu": ["quorum", "true"],
        "tasks.dead": ["classic", "true"],
    }
    assert f'"{DEAD_LETTER_QUEUE}"' in queues["tasks.cpu"][2]


def test_a_task_is_announced_to_its_kind_of_slot(api: Api, broker: TestBroker) -> None:
    # Given a model for each kind
    api.register("big", use_gpu=True)
    # When
    [small], [big] = submit(api), submit(api, model="big")
    # Then
    broker.wait_ready("tasks.cpu", 1)
    broker.wait_ready("tasks.gpu", 1)
    assert decode(broker.take("tasks.cpu")[0]).task_id == small
    assert decode(broker.take("tasks.gpu")[0]).task_id == big


def test_an_announcement_outlives_the_broker(api: Api, broker: TestBroker) -> None:
    submit(api)
    broker.wait_ready("tasks.cpu", 1)
    with broker.channel() as channel:
        properties = channel.basic_get("tasks.cpu")[1]
    assert (properties.delivery_mode, properties.content_type) == (2, "application/json")


def test_a_hint_leads_to_whichever_task_is_first_in_line(api: Api) -> None:
    # Given an ordinary task that was announced before an urgent one
    [ordinary] = submit(api)
    urgent = api.call(
        "POST",
        "/v1/tasks?model_human_readable_id=echo&priority=5",
        data=api.call("GET", f"/v1/tasks/{ordinary}/input").data,
        content_type="application/zip",
    ).json["id"]
    wanted = {"node": "n", "slot": "cpu-0", "kinds": ["cpu"], "wait_seconds": 0, "task_id": ordinary}
    # When slots hear of the ordinary one, three times
    leases = [api.call("POST", "/v1/leases", key=api.worker, json=wanted) for _ in range(3)]
    # Then each task was given out once, the urgent one first
    assert [lease.status_code for lease in leases] == [200, 200, 204]
    assert [lease.json["task_id"] for lease in leases[:2]] == [urgent, ordinary]


def test_what_was_announced_is_not_announced_again(api: Api, broker: TestBroker) -> None:
    submit(api, 5)
    broker.wait_ready("tasks.cpu", 5)
    assert [announcer(api).catch_up() for _ in range(3)] == [0, 0, 0]
    assert broker.ready("tasks.cpu") == 5


@pytest.mark.usefixtures("no_clock")
def test_lost_announcements_are_made_again(api: Api, broker: TestBroker) -> None:
    # Given five tasks, and a broker that has lost two of their announcements
    submit(api, 5)
    broker.wait_ready("tasks.cpu", 5)
    broker.take("tasks.cpu", 2)
    # When
    assert announcer(api).catch_up() == 2
    # Then there are as many as tasks, and no more
    broker.wait_ready("tasks.cpu", 5)
    assert announcer(api).catch_up() == 0


@pytest.mark.usefixtures("no_clock")
def test_a_task_that_runs_again_is_announced_when_it_is_due(
    api: Api, broker: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a task whose first attempt our infrastructure spoiled: it may run again in a few seconds
    monkeypatch.setattr("private_api.decisions.retries._BACK_OFF_SECONDS", (5.0,))
    submit(api)
    broker.wait_ready("tasks.cpu", 1)
    broker.take("tasks.cpu")
    lease = api.claim()
    api.fail(lease, "worker_lost")
    # Then it is not announced before
    assert announcer(api).catch_up() == 0
    assert broker.ready("tasks.cpu") == 0
    # And once it is announced it can be claimed at once
    broker.wait_ready("tasks.cpu", 1)
    again = api.claim(node="another")
    assert (again["task_id"], again["attempt"]) == (lease["task_id"], 2)


def test_queues_that_vanish_are_declared_again_and_filled(api: Api, broker: TestBroker) -> None:
    # Given announced tasks, and a broker that forgot its queues
    submit(api, 30)
    broker.wait_ready("tasks.cpu", 30)
    broker.delete_queues("tasks.cpu", "tasks.gpu", "tasks.dead")
    # When one more task comes, whose announcement finds no queue
    submit(api)
    # Then all is as it should be
    broker.wait_ready("tasks.cpu", 31)
    broker.wait_ready("tasks.dead", 0)


def test_a_connection_that_the_broker_closes_is_made_again(api: Api, broker: TestBroker) -> None:
    broker.close_connections("server")
    submit(api)
    broker.wait_ready("tasks.cpu", 1)


def test_a_missing_virtual_host_is_said_once_and_awaited(
    tmp_path: Path, rabbitmq: object, caplog: pytest.LogCaptureFixture
) -> None:
    # Given an address with a virtual host that does not exist
    broker = TestBroker(rabbitmq, made=False)  # type: ignore[arg-type]
    caplog.set_level(logging.INFO)
    with private_api(tmp_path, broker.url) as api:
        api.register("echo")
        lines = broker_lines(caplog, "is away")
        eventually(lines, 10, "the log says so")
        # When tasks are sent all the same, for longer than a few attempts to reach it
        submit(api, 3)
        eventually(lambda: attempts_ended(broker) >= 3, 10, "it is tried again and again")
        # Then there is one line, and it names what is wrong; the service says that it goes on without
        assert len(lines()) == 1
        assert f"no virtual host {broker.name!r}" in lines()[0]
        assert "BROKER_URL" in lines()[0]
        ready = api.call("GET", "/readyz")
        assert (ready.status_code, ready.json["status"]) == (200, "degraded")
        assert ready.json["checks"]["broker"] == "away"
        # And when it does exist, all tasks are announced
        broker.make()
        broker.wait_ready("tasks.cpu", 3, seconds=30)
        assert api.call("GET", "/readyz").json["checks"]["broker"] == "ok"


def test_a_wrong_password_is_said_without_the_password(
    tmp_path: Path, broker: TestBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with private_api(tmp_path, broker.url, password="hunter2-wrong") as api:
        lines = broker_lines(caplog, "is away")
        eventually(lines, 10, "the log says so")
        api.register("echo")
        submit(api)
        assert "refuses the user 'server' or its password (BROKER_URL, BROKER_PASSWORD)" in lines()[0]
        assert "hunter2" not in caplog.text


def test_without_a_broker_nothing_of_it_exists(tmp_path: Path) -> None:
    with private_api(tmp_path, "") as api:
        api.register("echo")
        submit(api)
        assert "broker" not in api.call("GET", "/readyz").json["checks"]
        assert api.call("GET", "/v1/dead-letters").status_code == 404


def test_an_announcement_is_prompt(api: Api, broker: TestBroker) -> None:
    # Given somebody who listens
    with broker.channel() as channel:
        arrivals: list[float] = []
        channel.basic_consume("tasks.cpu", lambda *_: arrivals.append(time.perf_counter()), auto_ack=True)
        channel.connection.process_data_events(0)
        delays = []
        # When tasks come one by one
        for number in range(1, 11):
            submit(api)
            answered = time.perf_counter()
            while len(arrivals) < number:
                channel.connection.process_data_events(5)
            delays.append(arrivals[-1] - answered)
    # Then each is heard of at once, even on a busy machine: no turn of a clock, of which the shortest takes
    # half a second, lies between
    assert sorted(delays)[5] < 0.45, delays


def broker_lines(caplog: pytest.LogCaptureFixture, words: str):  # type: ignore[no-untyped-def]
    return lambda: [
        r.getMessage() for r in caplog.records if "broker" in r.getMessage() and words in r.getMessage()
    ]


def attempts_ended(broker: TestBroker) -> int:
    """How often the broker refused somebody who asked for this virtual host."""
    return broker.part.logs().count(f"vhost {broker.name} not found")
