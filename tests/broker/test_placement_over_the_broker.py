"""A task that only one node may run reaches it over RabbitMQ, whoever hears of it first."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.broker.conftest import SLOTS
from tests.rig.api import Api
from tests.rig.brokers import TestBroker
from tests.rig.polling import eventually
from tests.rig.scrapes import scrape
from tests.rig.server import Server

_names = itertools.count(1)


@pytest.fixture
def north(server: Server, broker: TestBroker, admin: Api) -> Iterator[str]:
    """The label of a second node, with one slot, beside one that has two."""
    if not server.consumer.running:
        server.consumer.start()
    label = f"north-{next(_names)}"
    consumer = server.add_consumer(label, slots=1)
    consumer.start(BROKER_URL=broker.worker_url, NODE_LABELS=f"site={label}")
    broker.wait_consumers("tasks.cpu", SLOTS + 1, 30)
    eventually(lambda: admin.get(f"/v1/nodes/{label}").status_code == 200, 20, "the node has reported")
    yield label
    consumer.stop()
    server.consumers.remove(consumer)
    broker.wait_consumers("tasks.cpu", SLOTS, 10)


def test_a_task_for_one_node_is_passed_on_by_the_others(
    admin: Api, user: Api, broker: TestBroker, north: str
) -> None:
    # Given a model that one of three slots may run, all of which listen
    picky = admin.register("echo", node_labels={"site": north})
    for _ in range(4):
        # When, then: a slot that had not been told would have looked after a minute
        began = time.monotonic()
        ended = user.run(picky, {"in.txt": b"in"})
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1), ended
        assert time.monotonic() - began < 20
    broker.wait_ready("tasks.cpu", 0)


def test_tasks_that_nobody_may_run_hold_nothing_up_and_keep_nobody_busy(
    server: Server, admin: Api, user: Api, broker: TestBroker, north: str
) -> None:
    # Given many tasks for a node that is not there
    nowhere = admin.register("echo", node_labels={"site": "nowhere"})
    before, began = scrape(server.private_url), time.monotonic()
    waiting = [user.submit(nowhere) for _ in range(40)]
    assert user.task(waiting[0]["id"])["waiting_for"] == "the label site=nowhere; no node has it"
    # When some come that fit, then they do not wait behind them
    picky = admin.register("echo", node_labels={"site": north})
    fitting = [user.run(picky, {"in.txt": b"in"}) for _ in range(6)]
    assert {task["state"] for task in fitting} == {"succeeded"}
    # And the others went round at a walk: ten a second at most, beside those that catching up found missing
    after, seconds = scrape(server.private_url), time.monotonic() - began
    announced = after.since(before, "inferenceserver_announcements_confirmed_total", kind="cpu")
    assert announced <= 11 * seconds + 2 * len(waiting) + len(fitting)
    for task in waiting:
        user.post(f"/v1/tasks/{task['id']}/cancel")
    eventually(lambda: broker.ready("tasks.cpu") == 0, 30, "what was announced of them is forgotten")
