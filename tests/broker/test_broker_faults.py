"""The broker dies, freezes, forgets, comes late, and is impatient: no task is lost, and no submit waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.rig.api import Api
from tests.rig.brokers import TestBroker
from tests.rig.fixtures import running_server
from tests.rig.parts import start_rabbitmq
from tests.rig.polling import eventually
from tests.rig.server import Server
from tests.rig.zips import zip_of

# As an operator with other queues in mind might set it: shorter than the tasks below.
_IMPATIENT = "consumer_timeout = 1000"
SLOTS = 2
# Who waited for a frozen broker waited for its heartbeats: ten seconds and more.
WAITED_SECONDS = 8


@pytest.fixture(scope="module")
def broken() -> Iterator[TestBroker]:
    """A broker that tests may break; its queues are in the virtual host that it has from the start."""
    part = start_rabbitmq(_IMPATIENT)
    broker = TestBroker(part, "/")
    # It looks through its channels every minute; here more often, so that the limit is met.
    broker.control("application:set_env(rabbit, channel_tick_interval, 500).")
    yield broker
    part.remove()


@pytest.fixture(scope="module")
def server(broken: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"BROKER_URL": broken.url, "DRAIN_SECONDS": "1", "CLAIM_WAIT_SECONDS": "2"}
    consumer = {"BROKER_URL": broken.worker_url}
    directory = tmp_path_factory.mktemp("faults")
    with running_server(directory, slots=SLOTS, consumer=consumer, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def user(server: Server) -> Api:
    return server.caller("user")


@pytest.fixture(scope="module")
def echo(server: Server) -> str:
    return server.admin.register("echo")


class Waiting:
    """Tasks that wait for ever, since no slot has a GPU: as many as were sent are to be announced."""

    def __init__(self, server: Server) -> None:
        self._url, self._key = server.url, server.key("admin")
        self._model = server.admin.register("echo", use_gpu=True)
        self._body = zip_of({"in.txt": b"in"})
        self._of_thread = threading.local()
        self.count = 0

    def add(self, count: int, callers: int = 4) -> list[float]:
        """Send so many more, several at once; returns how long each took, in seconds."""
        with ThreadPoolExecutor(callers) as pool:
            took = list(pool.map(self._submit, range(count)))
        self.count += count
        return took

    def _submit(self, _number: int) -> float:
        if not hasattr(self._of_thread, "api"):
            self._of_thread.api = Api(self._url, self._key)
        began = time.perf_counter()
        answer = self._of_thread.api.post(
            "/v1/tasks", params={"model_human_readable_id": self._model}, data=self._body
        )
        assert answer.status_code == 202, answer.text
        return time.perf_counter() - began


@pytest.fixture(scope="module")
def waiting(server: Server) -> Waiting:
    return Waiting(server)


@pytest.fixture(autouse=True)
def whole(server: Server, broken: TestBroker) -> None:
    """Each test begins with slots that hear, and an API that announces."""
    eventually(lambda: broker_state(server) == "ok", 60, "the broker is reached", every=0.2)
    broken.wait_consumers("tasks.cpu", SLOTS, 60)


def broker_state(server: Server) -> str:
    return str(private_readiness(server).json()["checks"]["broker"])


def private_readiness(server: Server) -> requests.Response:
    """What the private API says of itself."""
    return requests.get(f"{server.private_url}/readyz", timeout=30)


def test_a_consumer_timeout_shorter_than_the_task_harms_nobody(
    server: Server, user: Api, broken: TestBroker
) -> None:
    # Given a broker that takes back what is not acknowledged within a second: it does so to others
    assert broken.control("application:get_env(rabbit, consumer_timeout).").strip() == "{ok,1000}"
    slow = server.admin.register("slow-echo")
    said_before = len(server.consumer.log.read_text())
    # When a task runs for longer, and others after it
    ended = [user.ended(task) for task in [user.submit(slow, {"steps.txt": b"4"}) for _ in range(3)]]
    # Then each ran once, and no connection was the worse for it
    assert {(task["state"], task["attempt"]) for task in ended} == {("succeeded", 1)}
    log = server.consumer.log.read_text()[said_before:]
    assert "PRECONDITION_FAILED" not in log
    assert "is away" not in log


def test_a_broker_that_is_killed_loses_no_announcement(
    server: Server, broken: TestBroker, user: Api, echo: str, waiting: Waiting
) -> None:
    # Given a thousand tasks
    waiting.add(1000)
    broken.wait_announced("tasks.gpu", 1000, 60)
    # When the broker dies, and a task comes while it is dead
    broken.part.kill()
    eventually(lambda: broker_state(server) == "away", 30, "it is noticed")
    assert user.run(echo)["state"] == "succeeded"
    broken.part.start()
    broken.part.wait_ready()
    # Then the thousand are announced
    broken.wait_announced("tasks.gpu", 1000, 60)
    # And slots hear again
    broken.wait_consumers("tasks.cpu", SLOTS, 60)
    assert user.run(echo)["state"] == "succeeded"


def test_a_frozen_broker_slows_no_submit(server: Server, broken: TestBroker, waiting: Waiting) -> None:
    # When the broker freezes, for longer than its heartbeats
    broken.part.pause()
    try:
        during: list[float] = []
        until = time.monotonic() + 35
        while broker_state(server) == "ok":
            during += waiting.add(10, callers=2)
            assert time.monotonic() < until, "it is noticed"
            # Twenty in a second or so: the next test has all of them announced again.
            time.sleep(0.5)
        during += waiting.add(100, callers=2)
    finally:
        broken.part.unpause()
    # Then nobody who sent a task waited for it
    assert max(during) < WAITED_SECONDS, sorted(during)[-3:]
    # And all are announced when it thaws
    broken.wait_announced("tasks.gpu", waiting.count, 60)


def test_a_broker_that_forgot_everything_is_told_again(
    server: Server, broken: TestBroker, user: Api, echo: str, waiting: Waiting
) -> None:
    # Given announced tasks
    waiting.add(200)
    # When its data is wiped
    for command in ("stop_app", "force_reset", "start_app"):
        broken.part.exec(["rabbitmqctl", command])
    # Then the queues are there again, and so is every announcement
    broken.part.wait_ready()
    broken.wait_announced("tasks.gpu", waiting.count, 60)
    # And slots hear
    broken.wait_consumers("tasks.cpu", SLOTS, 60)
    assert user.run(echo)["state"] == "succeeded"


def test_a_broker_that_is_absent_at_the_start_is_not_waited_for(
    server: Server, broken: TestBroker, user: Api, echo: str
) -> None:
    # Given a server that starts without its broker
    server.consumer.stop()
    server.private_api.stop()
    broken.part.stop()
    server.private_api.start()
    server.wait_until_ready()
    server.consumer.start()
    # Then it works, and says what is missing
    assert user.run(echo)["state"] == "succeeded"
    answer = private_readiness(server)
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert broker_state(server) == "away"
    # And when the broker comes, slots hear over it
    broken.part.start()
    broken.part.wait_ready()
    broken.wait_consumers("tasks.cpu", SLOTS, 60)
    assert user.run(echo)["state"] == "succeeded"
