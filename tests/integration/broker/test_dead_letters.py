"""What no consumer could read, as an operator sees it through the private API."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.broker.announcing_api import private_api, wait_for_broker
from tests.integration.private_api.callers import Api, problem
from tests.rig.brokers import TestBroker
from tests.rig.polling import eventually


@pytest.fixture
def api(tmp_path: Path, broker: TestBroker) -> Iterator[Api]:
    with private_api(tmp_path, broker.url) as api:
        wait_for_broker(api)
        yield api


def reject(broker: TestBroker, *bodies: bytes) -> None:
    """What a consumer does with messages that it cannot read."""
    broker.publish("tasks.cpu", *bodies)
    with broker.channel() as channel:
        for _ in bodies:
            channel.basic_reject(channel.basic_get("tasks.cpu")[0].delivery_tag, requeue=False)
    broker.wait_ready("tasks.dead", len(bodies))


def test_dead_letters_are_shown_with_their_story(api: Api, broker: TestBroker) -> None:
    # Given text, bytes that are no text, and something far too long
    before = datetime.now(UTC).replace(microsecond=0)
    reject(broker, b"hello", b"\xff\x00", "ö".encode() * 5000)
    # When an admin looks, twice
    first, second = (api.call("GET", "/v1/dead-letters") for _ in range(2))
    # Then all is there, each time
    assert first.status_code == 200
    assert first.json == second.json
    letters = first.json["dead_letters"]
    assert first.json["count"] == 3
    assert [(letter["body_encoding"], letter["truncated"]) for letter in letters] == [
        ("utf-8", False),
        ("base64", False),
        ("utf-8", True),
    ]
    assert letters[0]["body"] == "hello"
    assert base64.b64decode(letters[1]["body"]) == b"\xff\x00"
    assert set(letters[2]["body"]) == {"ö"}
    for letter in letters:
        assert (letter["queue"], letter["reason"]) == ("tasks.cpu", "rejected")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", letter["received_at"])
        assert datetime.fromisoformat(letter["received_at"]) >= before


def test_as_many_dead_letters_are_shown_as_are_asked_for(api: Api, broker: TestBroker) -> None:
    reject(broker, b"1", b"2", b"3")
    answer = api.call("GET", "/v1/dead-letters?limit=2").json
    assert ([letter["body"] for letter in answer["dead_letters"]], answer["count"]) == (["1", "2"], 3)


def test_what_somebody_put_there_by_hand_is_shown_too(api: Api, broker: TestBroker) -> None:
    broker.publish("tasks.dead", b"by hand")
    [letter] = api.call("GET", "/v1/dead-letters").json["dead_letters"]
    assert letter == {
        "received_at": None,
        "queue": None,
        "reason": None,
        "body": "by hand",
        "body_encoding": "utf-8",
        "truncated": False,
    }


def test_dead_letters_are_thrown_away(api: Api, broker: TestBroker) -> None:
    reject(broker, b"1", b"2")
    assert api.call("DELETE", "/v1/dead-letters").json == {"removed": 2}
    assert api.call("GET", "/v1/dead-letters").json == {"dead_letters": [], "count": 0}
    assert api.call("DELETE", "/v1/dead-letters").json == {"removed": 0}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_dead_letters_are_for_admins(api: Api, method: str) -> None:
    for key in (api.key_of("user"), api.worker):
        problem(api.call(method, "/v1/dead-letters", key=key), "forbidden", 403)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many"])
def test_a_strange_limit_of_dead_letters_is_refused(api: Api, limit: str) -> None:
    problem(api.call("GET", f"/v1/dead-letters?limit={limit}"), "invalid_field", 422)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_dead_letters_of_a_broker_that_is_away(tmp_path: Path, rabbitmq: object, method: str) -> None:
    broker = TestBroker(rabbitmq, made=False)  # type: ignore[arg-type]
    with private_api(tmp_path, broker.url) as api:
        answer = api.call(method, "/v1/dead-letters")
        document = problem(answer, "unavailable", 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert "virtual host" in document["detail"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_dead_letters_without_their_queue(api: Api, broker: TestBroker, method: str) -> None:
    # Given a broker that has just lost the queue
    broker.delete_queues("tasks.dead")
    # Then that is no mistake of ours
    problem(api.call(method, "/v1/dead-letters"), "unavailable", 503)


def test_without_a_broker_there_are_no_dead_letters(tmp_path: Path) -> None:
    with private_api(tmp_path, "") as api:
        for method in ("GET", "DELETE"):
            document = problem(api.call(method, "/v1/dead-letters"), "not_found", 404)
            assert "BROKER_URL" in document["detail"]


def test_looking_at_dead_letters_leaves_no_connection_behind(api: Api, broker: TestBroker) -> None:
    for _ in range(3):
        api.call("GET", "/v1/dead-letters")
    counted = (
        "length([C || C <- rabbit_networking:connections(), "
        f'rabbit_networking:connection_info(C, [vhost]) =:= [{{vhost, <<"{broker.name}">>}}]]).'
    )
    # The publisher's own.
    eventually(lambda: broker.control(counted).strip() == "1", 10, "one connection is left")
